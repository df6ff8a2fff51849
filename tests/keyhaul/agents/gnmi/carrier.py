"""A CKMS as far as a target is concerned: facts that change, and a book of statements that can be written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keyhaul.agents.gnmi.errors import Code, Refused
from keyhaul.agents.gnmi.models import ckms, etsi015
from keyhaul.agents.gnmi.schema import Schema
from keyhaul.agents.gnmi.tree import DataTree, Edit, Operation, Undo

STATEMENTS = f"/{ckms.TOP}/forwarding/statement"
NODE = "11111111-2222-4333-8444-555555555555"
LINK = "66666666-2222-4333-8444-555555555555"


def link(neighbour: str, **facts: Any) -> dict[str, Any]:
    pool = {"available": 2**40, "capacity": 2**41, "reserve": 4096, "bytes-in": 7, "bytes-used": 5, "bytes-burned": 0}
    return {
        "neighbour": neighbour,
        "id": f"link-{neighbour}",
        "up": True,
        "enabled": True,
        "quantum": True,
        "suite": "otp",
        "suites": ["otp", "aes-256-gcm"],
        "rate": 2**33,
        "qber": 0.0213,
        "latency": 480,
        "pool": [{"direction": "outgoing", **pool}, {"direction": "incoming", **pool}],
        **facts,
    }


class Book:
    """The statements that hold; refuses deletions, and bodies that begin with `bad`."""

    def __init__(self) -> None:
        self.held: dict[int, dict[str, Any]] = {}
        self.seen: list[tuple[Edit, ...]] = []

    async def write(self, edits: Sequence[Edit]) -> Undo:
        self.seen.append(tuple(edits))
        for edit in edits:
            if edit.operation is not Operation.UPDATE:
                raise Refused(Code.PERMISSION_DENIED, "statements are withdrawn by statements")
            if edit.value.get("body", b"").startswith(b"bad"):
                raise Refused(Code.INVALID_ARGUMENT, "the signature is not the controller's")
        former = dict(self.held)
        self.held.update({edit.value["serial"]: edit.value for edit in edits})

        async def undo() -> None:
            self.held = former

        return undo


class Carrier:
    """Facts in the shape that a CKMS has them, and the tree over them."""

    def __init__(self) -> None:
        self.links: dict[str, dict[str, Any]] = {each: link(each) for each in ("ckms-8", "ckms-16")}
        self.failures: dict[str, int] = {"no-keys": 2}
        self.entries: list[dict[str, Any]] = []
        self.started = 12
        self.book = Book()
        self.reads = 0
        self.tree = DataTree(
            Schema([ckms.MODULE, etsi015.MODULE]),
            {
                f"/{ckms.TOP}": self._service,
                f"/{ckms.TOP}/links": self._links,
                f"/{ckms.TOP}/relay": self._relay,
                f"/{ckms.TOP}/forwarding": self._forwarding,
                f"/{etsi015.TOP}": self._node,
            },
            {STATEMENTS: self.book},
        )

    def _service(self) -> dict[str, Any]:
        self.reads += 1
        return {
            "service-id": "ckms-9",
            "version": "0.1.0",
            "incarnation": "0011223344556677",
            "started-seconds-ago": self.started,
        }

    def _links(self) -> dict[str, Any]:
        return {"link": self.links.values()}

    def _relay(self) -> dict[str, Any]:
        failures = [{"reason": reason, "count": count} for reason, count in self.failures.items()]
        return {"submitted": 1, "forwarded": 2, "delivered": 3, "bytes": 4, "failure": failures}

    def _forwarding(self) -> dict[str, Any]:
        return {
            "epoch": 3,
            "serial": 17,
            "in-doubt": False,
            "hard-limit": 604800,
            "statement": self.book.held.values(),
            "entry": self.entries,
            "path": [
                {
                    "destination": "ckms-16",
                    "service-class": "gold",
                    "rank": 0,
                    "origin": "statement",
                    "group": "00112233445566aa" * 2,
                    "share": 0,
                    "shares": 1,
                    "next": "ckms-16",
                    "next-label": "0123456789abcdef",
                    "rate": 1000,
                    "burst": 4000,
                    "remaining": 60,
                    "serial": 17,
                    "batches": 0,
                    "bytes": 0,
                    "refused": 0,
                }
            ],
        }

    def _node(self) -> dict[str, Any]:
        return {
            "qkdn_id": NODE,
            "qkdn_status": "OPERATING",
            "qkdn_version": "0.1.0",
            "qkdn_location_id": "",
            "qkdn_capabilities": {"link_stats_support": True, "key_relay_mode_enable": True},
            "qkd_applications": {
                "qkd_app": [{"app_id": NODE, "app_status": "ON", "app_type": "INTERNAL", "backing_qkdl_id": [LINK]}]
            },
            "qkd_interfaces": {
                "qkd_interface": [
                    {
                        "qkdi_id": 1,
                        "qkdi_type": "DV-QKD",
                        "qkdi_status": "ENABLED",
                        "qkdi_capabilities": {"role_support": "TRANSMITTER", "max_absorption": 22.5},
                    }
                ]
            },
            "qkd_links": {
                "qkd_link": [
                    {
                        "qkdl_id": LINK,
                        "qkdl_status": "ACTIVE",
                        "qkdl_enable": True,
                        "qkdl_local": {"qkdn_id": NODE, "qkdi_id": 1},
                        "qkdl_performance": {"skr": 2300, "eskr": 2100, "expected_consumption": 0},
                    }
                ]
            },
        }
