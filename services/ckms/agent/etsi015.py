"""What this CKMS tells as a node of ETSI GS QKD 015 V2.1.1 (`etsi-qkd-sdn-node`): a source of a gNMI tree.

Nodes, links and the one application, the relaying of keys, go by UUIDs, which are made of their names (RFC 9562 section
5.5): both ends of a link give it the same. Applications of users do not exist here. The module allows `phys_perf` where
`qkdl_type = 'PHYS'`, which is never true of an identity (RFC 7950 section 9.10): error ratios are in `keyhaul-ckms`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from keyhaul.identity.names import ServiceName
from keyhaul.link.interface import LinkStatus
from services.ckms.agent.facts import TellingLink
from services.ckms.forwarding import Entry, ForwardingTable, Path

_LARGEST = 2**32 - 1

_STATUS = {"up": "ACTIVE", "disabled": "OFF", "establishing": "PENDING"}
"""Of a link, by its state; PASSIVE otherwise."""


def node_uuid(name: ServiceName) -> str:
    """The UUID of a CKMS (`qkdn_id`)."""
    return str(uuid5(NAMESPACE_URL, name.uri))


def link_uuid(domain: str, link: str) -> str:
    """The UUID of a link (`qkdl_id`)."""
    return str(uuid5(NAMESPACE_URL, f"keyhaul://{domain}/link/{link}"))


class QkdNode:
    """The source of `/etsi-qkd-sdn-node:qkd_node`; a link and its interface have one number."""

    def __init__(self, own: ServiceName, version: str, links: Sequence[TellingLink], table: ForwardingTable) -> None:
        self._own = own
        self._version = version
        self._links = links
        self._table = table
        self._id = node_uuid(own)
        self._relaying = str(uuid5(NAMESPACE_URL, f"{own.uri}/relay"))

    def members(self) -> dict[str, Any]:
        """The members of `qkd_node`."""
        told = [(link, link.link.status()) for link in self._links]
        expected = self._expected()
        return {
            "qkdn_id": self._id,
            "qkdn_status": "OPERATING",
            "qkdn_version": self._version,
            "qkdn_location_id": "",
            "qkdn_capabilities": {
                "link_stats_support": True,
                "application_stats_support": False,
                "key_relay_mode_enable": True,
            },
            "qkd_applications": {
                "qkd_app": [
                    {
                        "app_id": self._relaying,
                        "app_status": "ON",
                        "app_type": "INTERNAL",
                        "backing_qkdl_id": [self._link_id(status) for _, status in told],
                        "local_qkdn_id": self._id,
                    }
                ]
            },
            "qkd_interfaces": {
                "qkd_interface": [
                    {"qkdi_id": link.number, "qkdi_status": _interface_status(link, status)} for link, status in told
                ]
            },
            "qkd_links": {"qkd_link": [self._link(link, status, expected[status.neighbour]) for link, status in told]},
        }

    def _link(self, link: TellingLink, status: LinkStatus, expected: int) -> dict[str, Any]:
        rate = link.rate()
        return {
            "qkdl_id": self._link_id(status),
            "qkdl_status": _STATUS.get(status.state, "PASSIVE") if link.link.up or status.state != "up" else "PASSIVE",
            "qkdl_enable": status.state != "disabled",
            "qkdl_local": {"qkdn_id": self._id, "qkdi_id": link.number},
            "qkdl_remote": {"qkdn_id": node_uuid(link.link.neighbour)},
            "qkdl_type": "PHYS",
            "qkdl_applications": [self._relaying],
            "qkdl_performance": {
                "expected_consumption": min(_LARGEST, expected),
                "skr": min(_LARGEST, rate),
                "eskr": min(_LARGEST, max(0, rate - expected)),
            },
        }

    def _expected(self) -> Counter[str]:
        """What the controller has promised over each neighbour, bits per second."""
        expected: Counter[str] = Counter()
        rows: list[Entry | Path] = [*self._table.entries, *self._table.paths]
        for row in rows:
            hop = row.next if isinstance(row, Entry) else row.first
            if row.serial is not None and hop is not None:
                expected[hop.neighbour] += round(8 * row.limit.rate)
        return expected

    def _link_id(self, status: LinkStatus) -> str:
        return link_uuid(self._own.domain, status.link)


def _interface_status(link: TellingLink, status: LinkStatus) -> str:
    if status.state == "disabled":
        return "DISABLED"
    return "ENABLED" if link.module_answers() else "FAILED"
