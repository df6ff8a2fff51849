"""Reservations: who was promised how much of each link direction's rate, and until when.

A reservation is a lease: it ends unless it is renewed, so that what a dead node or a lost message left behind comes
back by itself. One demand may hold several leases while it moves from one path to another; it sends over one of them,
so an arc that several of its leases traverse is counted once, at the highest of their rates.

Sans-IO: time (`now`, seconds of a clock that only grows) is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from controller.admission.classes import CLASSES
from controller.paths.compute import Path
from controller.view import Link, NetworkView

Key = TypeVar("Key")

Hop = tuple[str, str]
"""A link's id and the node that it is traversed from."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a demand was promised along its paths."""

    id: str
    demand: str
    service_class: str
    rate: int
    """Link key on each hop, bits per second."""
    hops: tuple[Hop, ...]
    """Each hop of the demand's paths, backup included, once."""
    ends: frozenset[str]
    """The CKMSs between which it carries."""
    expires: float


class Overbooked(Exception):
    """A lease for which the rate of some hops does not suffice."""

    def __init__(self, hops: tuple[Hop, ...]) -> None:
        super().__init__(", ".join(f"{link} from {origin}" for link, origin in hops))
        self.hops = hops


def hops_of(paths: Iterable[Path]) -> tuple[Hop, ...]:
    """The hops of several paths, each once."""
    return tuple(dict.fromkeys(hop for path in paths for hop in zip(path.links, path.nodes[:-1], strict=True)))


class Reservations:
    """All leases of a network."""

    def __init__(self, leases: Iterable[Lease] = ()) -> None:
        """Begin with leases that were granted before."""
        self._leases: dict[str, Lease] = {}
        self._on: dict[Hop, dict[str, Lease]] = {}
        self._total: dict[Hop, int] = {}
        """What is promised of each, bits per second."""
        self._of: dict[str, dict[str, Lease]] = {}
        """By demand."""
        for lease in leases:
            self._enter(lease)

    @property
    def leases(self) -> tuple[Lease, ...]:
        """All leases, the oldest first."""
        return tuple(self._leases.values())

    def lease(self, identity: str) -> Lease | None:
        """A lease by its id."""
        return self._leases.get(identity)

    def reserve(self, view: NetworkView, lease: Lease) -> None:
        """Take a lease up.

        What else its demand holds counts as long as it lasts: at the highest rate on each arc, and where a link's
        directions share a stream, on both. So a demand that moves may have to release its former lease first.

        Raises:
            Overbooked: some hops have too little of their rate to spare, or are not in the view; nothing changed.
            ValueError: there is one of this id.
        """
        if lease.id in self._leases:
            raise ValueError(f"lease {lease.id} is there already")
        over = tuple(hop for hop in lease.hops if self._excess(view, hop, lease) > 0)
        if over:
            raise Overbooked(over)
        self._enter(lease)

    def renew(self, identity: str, expires: float) -> bool:
        """Let a lease last until `expires`, if that is longer; False where it ended before."""
        lease = self._leases.get(identity)
        if lease is None:
            return False
        if expires > lease.expires:
            renewed = replace(lease, expires=expires)
            self._leases[identity] = self._of[lease.demand][identity] = renewed
            for hop in lease.hops:
                self._on[hop][identity] = renewed
        return True

    def release(self, identity: str) -> Lease | None:
        """End one lease."""
        lease = self._leases.pop(identity, None)
        if lease is not None:
            _drop(self._of, lease.demand, identity)
            for hop in lease.hops:
                self._total[hop] -= max(0, lease.rate - self._own(hop, lease.demand))
                _drop(self._on, hop, identity)
                if hop not in self._on:
                    del self._total[hop]
        return lease

    def release_demand(self, demand: str) -> tuple[Lease, ...]:
        """End the leases of a demand."""
        return self._end(self.leases_of(demand))

    def release_node(self, node: str) -> tuple[Lease, ...]:
        """End the leases that begin or end at a node that is gone; those over it have their backups, or expire."""
        return self._end(lease for lease in self._leases.values() if node in lease.ends)

    def expire(self, now: float) -> tuple[Lease, ...]:
        """End the leases whose time is over."""
        return self._end(lease for lease in self._leases.values() if lease.expires <= now)

    def shed(self, view: NetworkView) -> tuple[Lease, ...]:
        """End leases until nothing is promised that the rates do not give: of each hop the lowest class first, then
        the latest. To be called when rates fell or links went; a link that is down keeps its rate's leases, since it
        may be back before they expire.
        """
        ended: dict[str, Lease] = {}
        age = {identity: number for number, identity in enumerate(self._leases)}
        for hop in list(self._on):
            while self.reserved(hop) and self._excess(view, hop) > 0:
                last = min(
                    self._leases_at(view, hop),
                    key=lambda lease: (CLASSES[lease.service_class].precedence, -age[lease.id]),
                )
                self.release(last.id)
                ended[last.id] = last
        return tuple(ended.values())

    def reserved(self, hop: Hop, without: str | None = None) -> int:
        """What is promised of a hop's rate, bits per second, but to the demand `without`."""
        total = self._total.get(hop, 0)
        return total - self._own(hop, without) if total and without is not None else total

    def free_at(self, view: NetworkView, hop: Hop, rate: int, now: float, without: str | None = None) -> float | None:
        """When a hop has `rate` to spare if nothing is renewed, but for what the demand `without` has; None: not before
        the link gets faster.
        """
        trial = Lease("", "", "", rate, (hop,), frozenset(), now)
        others = Reservations(lease for lease in self._leases_at(view, hop) if lease.demand != without)
        at = now
        for lease in sorted(others.leases, key=lambda lease: lease.expires):
            if others._excess(view, hop, trial) <= 0:
                break
            others.release(lease.id)
            at = max(now, lease.expires)
        return at if others._excess(view, hop, trial) <= 0 else None

    def stamped(self, link: Link, without: str | None = None) -> Link:
        """A link with what is promised of its directions."""
        ab, ba = self.reserved((link.id, link.a), without), self.reserved((link.id, link.b), without)
        if link.ab.reserved != ab:
            link = replace(link, ab=replace(link.ab, reserved=ab))
        if link.ba.reserved != ba:
            link = replace(link, ba=replace(link.ba, reserved=ba))
        return link

    def onto(self, view: NetworkView, links: Iterable[str] | None = None, without: str | None = None) -> NetworkView:
        """The view with what is promised; of these links alone where they are named.

        With `without`, as if that demand had nothing: what it would find that moves.
        """
        chosen = view.links if links is None else [view.link(identity) for identity in dict.fromkeys(links)]
        changes = [new for link in chosen if (new := self.stamped(link, without)) is not link]
        return view.changed(changes) if changes else view

    def leases_of(self, demand: str) -> tuple[Lease, ...]:
        """The leases of a demand, the oldest first."""
        return tuple(self._of.get(demand, {}).values())

    def links_of(self, demand: str) -> tuple[str, ...]:
        """The links that a demand's leases traverse."""
        return tuple(dict.fromkeys(link for lease in self.leases_of(demand) for link, _ in lease.hops))

    def _excess(self, view: NetworkView, hop: Hop, further: Lease | None = None) -> int:
        """By how much what is promised of a hop exceeds its rate, or that of the link's both directions their stream;
        with one lease more, where it is given."""
        try:
            arc = view.arc(*hop)
        except KeyError:
            return 1
        link = view.links[arc >> 1]
        there = self._with(hop, further)
        excess = there - link.direction(arc).rate
        if link.stream is None:
            return excess
        back = self._with(_back(link, hop), further)
        return max(excess, there + back - link.stream)

    def _with(self, hop: Hop, further: Lease | None) -> int:
        """What is promised of a hop, with one lease more."""
        if further is None or hop not in further.hops:
            return self.reserved(hop)
        return self.reserved(hop) + max(0, further.rate - self._own(hop, further.demand))

    def _own(self, hop: Hop, demand: str) -> int:
        """What is promised of a hop to one demand, bits per second."""
        there = self._on.get(hop)
        if there is None:
            return 0
        return max((one.rate for one in self._of.get(demand, {}).values() if one.id in there), default=0)

    def _leases_at(self, view: NetworkView, hop: Hop) -> tuple[Lease, ...]:
        """The leases that a hop's rate is promised to: where both directions share a stream, of both."""
        own = self._on.get(hop, {})
        try:
            link = view.links[view.arc(*hop) >> 1]
        except KeyError:
            return tuple(own.values())
        if link.stream is None:
            return tuple(own.values())
        return tuple((own | self._on.get(_back(link, hop), {})).values())

    def _enter(self, lease: Lease) -> None:
        for hop in lease.hops:
            self._total[hop] = self._total.get(hop, 0) + max(0, lease.rate - self._own(hop, lease.demand))
        self._leases[lease.id] = lease
        self._of.setdefault(lease.demand, {})[lease.id] = lease
        for hop in lease.hops:
            self._on.setdefault(hop, {})[lease.id] = lease

    def _end(self, leases: Iterable[Lease]) -> tuple[Lease, ...]:
        ended = tuple(leases)
        for lease in ended:
            self.release(lease.id)
        return ended


def _drop(index: dict[Key, dict[str, Lease]], key: Key, identity: str) -> None:
    """Take a lease out of an index."""
    others = index[key]
    del others[identity]
    if not others:
        del index[key]


def _back(link: Link, hop: Hop) -> Hop:
    """The other direction of a hop."""
    return link.id, link.b if hop[1] == link.a else link.a
