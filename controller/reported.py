"""What one CKMS has told so far, from the messages of its telemetry to its report. Sans-IO.

Nothing that a node sends is trusted to be what its schema says: what cannot be read is passed over and counted, and no
node can make more than a bounded amount be kept. Whether what it says is so is for `controller.topology` to judge.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import msgspec

from controller.facts import LinkFacts, NodeReport, PoolFacts, Received
from controller.rhythm import Rhythm
from keyhaul.agents.gnmi.models.ckms import NAME, TOP
from keyhaul.agents.gnmi.notices import Notice, Update, Wanted
from keyhaul.agents.gnmi.paths import Path, Step

MAXIMUM_LINKS = 1_024
"""Of one node; more are passed over."""

_Name = Annotated[str, msgspec.Meta(max_length=128)]


def wanted(rhythm: Rhythm) -> tuple[Wanted, ...]:
    """What is subscribed to."""
    return (
        Wanted(f"/{TOP}/service-id", heartbeat=rhythm.heartbeat),
        Wanted(f"/{TOP}/version"),
        Wanted(f"/{TOP}/incarnation"),
        Wanted(f"/{TOP}/links/link[neighbour=*]", sample=rhythm.sample),
        # Below the object they are told by themselves, as soon as they change.
        Wanted(f"/{TOP}/links/link[neighbour=*]/up"),
        Wanted(f"/{TOP}/links/link[neighbour=*]/enabled"),
    )


def qualified(member: str) -> str:
    """The name of a member of what is told as one JSON object (RFC 7951 section 4)."""
    return f"{NAME}:{member.replace('_', '-')}"


class _Pool(msgspec.Struct, rename="kebab"):
    direction: _Name
    available: int = 0
    capacity: int = 0
    reserve: int = 0
    bytes_in: int = 0
    bytes_used: int = 0
    bytes_burned: int = 0

    def facts(self) -> PoolFacts:
        return PoolFacts(self.available, self.capacity, self.reserve, self.bytes_in, self.bytes_used, self.bytes_burned)


class _Link(msgspec.Struct, rename=qualified):
    """One link as RFC 7951 writes it: names with their module, 64-bit numbers and decimals as strings."""

    id: _Name
    up: bool = False
    enabled: bool = True
    quantum: bool = False
    suite: _Name = ""
    suites: Annotated[list[_Name], msgspec.Meta(max_length=16)] = []
    rate: int = 0
    qber: float | None = None
    latency: int | None = None
    pool: Annotated[list[_Pool], msgspec.Meta(max_length=4)] = []


_LINK = msgspec.json.Decoder(_Link, strict=False)
_FLAG = msgspec.json.Decoder(bool)
_TEXT = msgspec.json.Decoder(_Name)

_OF_NODE = {"service-id": "service_id", "version": "version", "incarnation": "incarnation"}


class Reported:
    """What one CKMS has told, over all its subscriptions.

    Args:
        node: service id in its certificate.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self.unreadable = 0
        """Values that were passed over."""
        self._at = float("-inf")
        self._fresh = Rhythm().silence
        self._facts = dict.fromkeys(_OF_NODE.values(), "")
        self._links: dict[str, Received] = {}
        self._stale: set[str] = set()
        self._readable = True

    @property
    def report(self) -> NodeReport:
        """What it comes to. It does not change."""
        links, unreadable = dict(self._links), not self._readable
        return NodeReport(self.node, self._at, links=links, fresh=self._fresh, unreadable=unreadable, **self._facts)

    def begin(self, rhythm: Rhythm) -> None:
        """A new subscription begins: what it does not tell until it is in step is not there any more."""
        self._fresh = rhythm.silence
        self._stale = set(self._links)
        self._readable = True

    def take(self, notice: Notice, now: float) -> bool:
        """Take what came.

        Args:
            notice: the message.
            now: seconds of the controller's own monotonic clock.

        Returns:
            Whether it should be acted on at once: a link went or came, or the process is another one.
        """
        self._at = now
        urgent = False
        for path in notice.deletes:
            urgent |= self._delete(path)
        for update in notice.updates:
            try:
                urgent |= self._update(update, now)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
                self._pass_over()
        if notice.synced:
            urgent |= bool(self._stale)
            for neighbour in self._stale:
                self._links.pop(neighbour, None)
            self._stale = set()
        return urgent

    def _pass_over(self) -> None:
        self.unreadable += 1
        self._readable = False

    def _delete(self, path: Path) -> bool:
        neighbour = _neighbour(path)
        if neighbour is not None and len(path) == _LINK_DEPTH:
            return self._links.pop(neighbour, None) is not None
        if path in _ABOVE_LINKS:
            gone, self._links = bool(self._links), {}
            return gone
        return False

    def _update(self, update: Update, now: float) -> bool:
        neighbour = _neighbour(update.path)
        if neighbour is None:
            return self._of_node(update)
        before = self._links.get(neighbour)
        if len(update.path) == _LINK_DEPTH:
            if before is None and len(self._links) >= MAXIMUM_LINKS:
                self._pass_over()
                return False
            facts = _facts(neighbour, _LINK.decode(update.value))
        elif before is not None and update.path[-1].name == "up":
            facts = replace(before.facts, up=_FLAG.decode(update.value))
        elif before is not None and update.path[-1].name == "enabled":
            facts = replace(before.facts, enabled=_FLAG.decode(update.value))
        else:
            return False
        self._stale.discard(neighbour)
        self._links[neighbour] = Received(facts, now)
        return before is None or (before.facts.up, before.facts.enabled) != (facts.up, facts.enabled)

    def _of_node(self, update: Update) -> bool:
        name = _OF_NODE.get(update.path[-1].name if len(update.path) == 2 else "")
        if name is None:
            return False
        value = _TEXT.decode(update.value)
        changed = name == "incarnation" and self._facts[name] not in ("", value)
        self._facts[name] = value
        return changed


_LINK_DEPTH = 3
_ABOVE_LINKS: tuple[Path, ...] = ((), (Step(TOP),), (Step(TOP), Step("links")))


def _neighbour(path: Path) -> str | None:
    """The neighbour in the path of a link, or of something below it."""
    if len(path) < _LINK_DEPTH or path[:2] != _ABOVE_LINKS[-1] or path[2].name != "link":
        return None
    return dict(path[2].keys).get("neighbour")


def _facts(neighbour: str, told: _Link) -> LinkFacts:
    pools = {pool.direction: pool.facts() for pool in told.pool}
    return LinkFacts(
        told.id,
        neighbour,
        up=told.up,
        enabled=told.enabled,
        quantum=told.quantum,
        suite=told.suite,
        suites=frozenset(told.suites),
        rate=told.rate,
        qber=told.qber,
        latency_us=told.latency,
        outgoing=pools.get("outgoing"),
        incoming=pools.get("incoming"),
    )
