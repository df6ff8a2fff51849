"""CKMSs as a controller meets them: real gNMI targets on real sockets, which verify statements as a CKMS does."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keyhaul.agents.gnmi.limits import Limits
from keyhaul.agents.gnmi.models import ckms
from keyhaul.agents.gnmi.peers import Peers
from keyhaul.agents.gnmi.schema import Schema
from keyhaul.agents.gnmi.target import Target, serve
from keyhaul.agents.gnmi.tree import DataTree
from keyhaul.agents.signing import SignedStatement
from keyhaul.agents.statements import StatementRefusal, StatementRefused
from keyhaul.identity.keys import generate
from keyhaul.identity.names import Role
from keyhaul.randomness import identifier
from services.ckms.agent.writer import StatementWriter
from services.ckms.forwarding import Entry, ForwardingTable, Path
from services.ckms.installed import Installed
from tests.keyhaul.agents.gnmi.pki import DOMAIN, Twins, service

CONTROLLER = service(Role.CONTROLLER, "1")
KEY = generate(lambda count: b"\x07" * count)
LIMITS = Limits(look=0.02, fresh=0.0, revalidate=0.5)
_HOSTS = itertools.count(1)


def free_address() -> str:
    """An address that nobody has, of the range of these tests."""
    number = next(_HOSTS)
    host = f"127.232.{number // 250 % 250}.{number % 250 + 1}"
    with socket.socket() as probe:
        probe.bind((host, 0))
        return f"{host}:{probe.getsockname()[1]}"


def link(identity: str, **facts: Any) -> dict[str, Any]:
    """What a CKMS tells of one of its links."""
    pool = {"available": 60_000, "capacity": 65_536, "reserve": 2_048, "bytes-in": 7, "bytes-used": 5}
    pool["bytes-burned"] = 0
    return {
        "id": identity,
        "up": True,
        "enabled": True,
        "quantum": True,
        "suite": "otp",
        "suites": ["otp", "aes-256-gcm"],
        "rate": 100_000,
        "qber": 0.02,
        "latency": 400,
        "pool": [{"direction": "outgoing", **pool}, {"direction": "incoming", **pool}],
    } | facts


@dataclass
class Agent:
    """One CKMS. Its facts may be changed while it serves; `refuses` and `answering` make faults."""

    node: str
    links: dict[str, dict[str, Any]]
    """By neighbour."""
    twins: Twins
    address: str = field(default_factory=free_address)
    incarnation: str = field(default_factory=identifier)
    refuses: bool = False
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether a Set is answered."""
    sets: list[tuple[int, ...]] = field(default_factory=list)
    """Serials of what was accepted."""
    clock: float = 0.0

    def __post_init__(self) -> None:
        self.answering.set()
        self._table = ForwardingTable(self.node, list(self.links), delivers=True)
        self.installed = Installed(self.node, self.incarnation, [KEY.public_key()], self._table, hard_limit=1e6)
        self._tree = DataTree(
            Schema([ckms.MODULE]),
            {
                f"/{ckms.TOP}": self._service,
                f"/{ckms.TOP}/links": lambda: {
                    "link": [{"neighbour": neighbour, **facts} for neighbour, facts in self.links.items()]
                },
                f"/{ckms.TOP}/forwarding": self._forwarding,
            },
            {f"/{ckms.TOP}/forwarding/statement": StatementWriter(self)},
        )
        self._server: Any = None
        self._target: Target | None = None

    @property
    def entries(self) -> list[Entry]:
        """In force, of statements."""
        return [entry for entry in self._table.entries if entry.serial is not None]

    @property
    def paths(self) -> list[Path]:
        """In force, of statements."""
        return [path for path in self._table.paths if path.serial is not None]

    async def start(self) -> None:
        """Serve."""
        files = self.twins.files(service(Role.CKMS, self.node.removeprefix("ckms-")), crl=False)
        self._target = Target(self._tree, Peers(files, DOMAIN), limits=LIMITS)
        self._server = await serve(self._target, self.address, files, LIMITS)

    async def stop(self) -> None:
        """Serve no more, at once."""
        if self._server is not None and self._target is not None:
            server, self._server = self._server, None
            await server.stop(None)
            await self._target.finish()

    def told(self) -> None:
        """Its facts changed."""
        self._tree.refresh()

    async def accept(self, offered: Mapping[int, SignedStatement]) -> None:
        """Take statements as a CKMS does, but for the store."""
        if self.refuses:
            raise StatementRefused(StatementRefusal.UNFIT, "not now")
        await self.answering.wait()
        change = self.installed.consider(self.installed.verified(offered), self.clock)
        self.installed.take(change)
        self.installed.heard(self.clock)
        self.sets.append(tuple(sorted(offered)))

    def _service(self) -> dict[str, Any]:
        return {
            "service-id": self.node,
            "version": "0.1.0",
            "incarnation": self.incarnation,
            "started-seconds-ago": 3,
        }

    def _forwarding(self) -> dict[str, Any]:
        high = self.installed.high
        return {
            "epoch": high.epoch,
            "serial": high.serial,
            "in-doubt": high.doubt,
            "hard-limit": 1_000_000,
            "statement": [
                {"serial": serial, "body": held.signed.body, "signature": held.signed.signature}
                for serial, held in self.installed.held.items()
                if held.drained is None
            ],
            "entry": [
                {"previous": entry.previous, "label": entry.label, **self._common(entry)} for entry in self.entries
            ],
            "path": [
                {
                    "destination": path.destination,
                    "service-class": path.service_class or "any",
                    "rank": path.rank,
                    "origin": "statement",
                    **self._common(path),
                }
                for path in self.paths
            ],
        }

    def _common(self, row: Entry | Path) -> dict[str, Any]:
        assert row.serial is not None
        held = self.installed.held[row.serial]
        return {
            "serial": row.serial if held.drained is None else None,
            "remaining": int(held.remaining(self.clock)),
        }
