"""What this CKMS tells of itself, as the YANG module `keyhaul-ckms` has it: sources of a gNMI tree.

Sans-IO: everything is read from the parts of the service when it is asked for; time is an argument of the construction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from keyhaul.agents.gnmi.tree import UNCHANGED, Unchanged
from keyhaul.link.interface import DirectionStatus, LinkCalls
from services.ckms.forwarding import Entry, ForwardingTable, Path
from services.ckms.held import Held, HighWater
from services.ckms.policing import Limit
from services.ckms.relay import Relay

LOOK = 1.0
"""Seconds between two looks at what each entry has carried: a large table takes a while."""

STEP = 10
"""Seconds in which what is left of a lifetime is told, until the last ten, so that an entry seldom changes."""

_LARGEST = 2**63 - 1


class Steered(Protocol):
    """The statements in force, as far as they are told (`services.ckms.steering.Steering`)."""

    @property
    def high(self) -> HighWater:
        """How far (epoch, serial) has grown."""
        ...

    @property
    def hard_limit(self) -> float:
        """Seconds."""
        ...

    @property
    def held(self) -> Mapping[int, Held]:
        """By serial."""
        ...

    def now(self) -> float:
        """The time by which they are counted."""
        ...


@dataclass(frozen=True, slots=True)
class TellingLink:
    """One link and what is known of it beside what it tells itself; asked anew each time."""

    link: LinkCalls
    capacity: int
    """Bytes of pad of one direction, the reserve included."""
    rate: Callable[[], int]
    """New key material, bits per second."""
    qber: Callable[[], float | None]
    round_trip: Callable[[], float | None]
    """Seconds."""
    module_answers: Callable[[], bool]
    """Whether the QKD module of this end does."""
    number: int
    """Of the link and its interface, as long as the process runs (ETSI GS QKD 015, qkdi_id)."""


@dataclass(frozen=True, slots=True)
class Node:
    """Who tells."""

    id: str
    version: str
    incarnation: str


class CarrierFacts:
    """The sources of `/keyhaul-ckms:carrier`."""

    def __init__(
        self,
        node: Node,
        links: Sequence[TellingLink],
        relay: Relay,
        table: ForwardingTable,
        steering: Steered | None,
        clock: Callable[[], float],
    ) -> None:
        """Tell of these parts.

        Args:
            node: who tells.
            links: to other CKMSs.
            relay: its counts.
            table: entries and paths in force.
            steering: the controller's statements; None: nobody steers this CKMS.
            clock: seconds, monotonic; it begins now.
        """
        self._node = node
        self._links = links
        self._relay = relay
        self._table = table
        self._steering = steering
        self._clock = clock
        self._started = clock()
        self._told_at = float("-inf")
        self._told_of = -1

    def service(self) -> dict[str, Any]:
        """The members of `carrier`."""
        return {
            "service-id": self._node.id,
            "version": self._node.version,
            "incarnation": self._node.incarnation,
            "started-seconds-ago": int(self._clock() - self._started),
        }

    def links(self) -> dict[str, Any]:
        """The members of `links`."""
        return {"link": [_link(link) for link in self._links]}

    def relay(self) -> dict[str, Any]:
        """The members of `relay`."""
        counts = self._relay.counts
        return {
            "submitted": counts.submitted,
            "forwarded": counts.forwarded,
            "delivered": counts.delivered,
            "bytes": counts.bytes,
            "failure": [{"reason": reason.value, "count": count} for reason, count in counts.failures.items()],
        }

    def forwarding(self) -> dict[str, Any] | Unchanged:
        """The members of `forwarding`: looked at when something else is in force, and else for its counters."""
        now, changes = self._clock(), self._table.changes
        if changes == self._told_of and now - self._told_at < LOOK:
            return UNCHANGED
        self._told_at, self._told_of = now, changes
        steering = self._steering
        said: dict[str, Any] = {}
        if steering is not None:
            high = steering.high
            said = {
                "epoch": high.epoch,
                "serial": high.serial,
                "in-doubt": high.doubt,
                "hard-limit": min(2**32 - 1, int(steering.hard_limit)),
                "statement": list(_statements(steering.held)),
            }
        return {
            **said,
            "entry": [self._entry(entry) for entry in self._table.entries],
            "path": [self._path(path) for path in self._table.paths],
        }

    def _entry(self, entry: Entry) -> dict[str, Any]:
        return {
            "previous": entry.previous,
            "label": entry.label,
            "next": entry.next.neighbour if entry.next else None,
            "next-label": entry.next.label if entry.next else None,
            "detour": entry.detour.neighbour if entry.detour else None,
            "detour-label": entry.detour.label if entry.detour else None,
            "service-class": entry.service_class,
            **self._policed((entry.previous, entry.label), entry.limit, entry.serial),
        }

    def _path(self, path: Path) -> dict[str, Any]:
        return {
            "destination": path.destination,
            "service-class": path.service_class or "any",
            "rank": path.rank,
            "origin": "configuration" if path.serial is None else "statement",
            "group": path.group or None,
            "share": path.share,
            "shares": path.shares,
            "next": path.first.neighbour,
            "next-label": path.first.label,
            **self._policed((path.first.neighbour, path.first.label), path.limit, path.serial),
        }

    def _policed(self, place: tuple[str, str], limit: Limit, serial: int | None) -> dict[str, Any]:
        traffic = self._relay.police.traffic(place)
        held = None if self._steering is None or serial is None else self._steering.held.get(serial)
        return {
            "rate": int(min(limit.rate, _LARGEST)),
            "burst": min(limit.burst, _LARGEST),
            "remaining": self._remaining(held),
            "serial": serial if held is None or held.drained is None else None,
            "batches": traffic.batches,
            "bytes": traffic.bytes,
            "refused": traffic.refused,
        }

    def _remaining(self, held: Held | None) -> int | None:
        if held is None or self._steering is None:
            return None
        remaining = int(held.remaining(self._steering.now()))
        return remaining - remaining % STEP if remaining >= STEP else remaining


def _statements(held: Mapping[int, Held]) -> Iterator[dict[str, Any]]:
    """Those that hold: an entry that only drains has been withdrawn."""
    for serial, each in held.items():
        if each.drained is None:
            yield {"serial": serial, "body": each.signed.body, "signature": each.signed.signature}


def _link(link: TellingLink) -> dict[str, Any]:
    status, round_trip = link.link.status(), link.round_trip()
    return {
        "neighbour": status.neighbour,
        "id": status.link,
        "up": link.link.up,
        "enabled": status.state != "disabled",
        "quantum": True,
        "suite": status.suite or None,
        "suites": list(status.suites),
        "rate": link.rate(),
        "qber": link.qber(),
        "latency": None if round_trip is None else round(1e6 * round_trip),
        "pool": [
            _pool("outgoing", status.outgoing, link.capacity),
            _pool("incoming", status.incoming, link.capacity),
        ],
    }


def _pool(direction: str, status: DirectionStatus, capacity: int) -> dict[str, Any]:
    return {
        "direction": direction,
        "available": status.payload_available + status.control_available,
        "capacity": capacity,
        "reserve": status.control_available,
        "bytes-in": status.added_total,
        "bytes-used": status.used_total,
        "bytes-burned": status.burned_total,
    }
