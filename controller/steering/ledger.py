"""The network as it is, with what is promised of it: a view and reservations that are kept in step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from controller.admission.reservations import Lease, Overbooked, Reservations
from controller.paths.policies import Policy
from controller.view import Link, NetworkView

PATIENCE = 30.0
"""Seconds for which a rate may be less than what is promised of it: modules yield in bursts, links come back."""


@dataclass(frozen=True, slots=True)
class Shift:
    """What differs between a view and the one before, as far as it decides where paths may go."""

    everything: bool = False
    """The topology is another one."""
    links: frozenset[str] = frozenset()
    """Links that went up or down, or changed in what they offer."""
    nodes: frozenset[str] = frozenset()
    """Nodes that were quarantined or released, or moved."""

    def __bool__(self) -> bool:
        return self.everything or bool(self.links) or bool(self.nodes)


class Ledger:
    """The present view, stamped with the reservations."""

    def __init__(self, policy: Policy = Policy.RESIDUAL) -> None:
        self.policy = policy
        """By which paths are chosen."""
        self.view = NetworkView((), ())
        """With what is promised of each direction."""
        self.reservations = Reservations()
        self._bare = self.view
        self._strained: dict[str, float] = {}
        """Links that have less than is promised of them, and since when."""

    def observe(self, view: NetworkView, now: float) -> Shift:
        """Take the next view, whatever reservations it shows; return what changed for paths."""
        bare, self._bare = self._bare, view
        if view is bare:
            return Shift()
        if view.topology is not bare.topology:
            self.view = self.reservations.onto(view)
            self._strained = {}
            self._strain(self.view.links, now)
            return Shift(everything=True)
        links = [(new, old) for new, old in zip(view.links, bare.links, strict=True) if new is not old]
        nodes = [(new, old) for new, old in zip(view.nodes, bare.nodes, strict=True) if new is not old]
        stamped = [self.reservations.stamped(new) for new, _ in links]
        self.view = self.view.changed(stamped, [new for new, _ in nodes])
        self._strain(stamped, now)
        return Shift(
            links=frozenset(new.id for new, old in links if _offer(new) != _offer(old)),
            nodes=frozenset(new.id for new, _ in nodes),
        )

    def restart(self, leases: Iterable[Lease], now: float) -> None:
        """Begin with what was promised before, whether it still fits or not."""
        self.reservations = Reservations(leases)
        self.view = self.reservations.onto(self._bare)
        self._strain(self.view.links, now)

    def reserve(self, lease: Lease) -> bool:
        """Take a lease up; False where some hop has too little to spare."""
        try:
            self.reservations.reserve(self.view, lease)
        except Overbooked:
            return False
        self.stamp((lease,))
        return True

    def release(self, identity: str | None) -> Lease | None:
        """End a lease."""
        lease = None if identity is None else self.reservations.release(identity)
        if lease is not None:
            self.stamp((lease,))
        return lease

    def shed(self, now: float) -> tuple[Lease, ...]:
        """End what is promised and has not been there for `PATIENCE`, or is on links that are gone.

        A link that is down keeps what is promised of it: it may be back before anybody moved.
        """
        known = self.view.topology.link_number
        gone = any(link not in known for lease in self.reservations.leases for link, _ in lease.hops)
        ripe = {link for link, since in self._strained.items() if now - since >= PATIENCE}
        if not ripe and not gone:
            return ()
        spared = [_relieved(self.view.link(link)) for link in self._strained.keys() - ripe]
        down = [_relieved(link) for link in self.view.links if not link.up and _is_strained(link)]
        ended = self.reservations.shed(self.view.changed([*spared, *down]))
        self.stamp(ended)
        self._strain((self.view.link(link) for link in ripe), now)
        return ended

    def stamp(self, leases: Iterable[Lease]) -> None:
        """Show in the view what these leases, new or ended, change."""
        known = self.view.topology.link_number
        links = dict.fromkeys(link for lease in leases for link, _ in lease.hops if link in known)
        if links:
            self.view = self.reservations.onto(self.view, links)
            for link in self._strained.keys() & links.keys():
                if not _is_strained(self.view.link(link)):
                    del self._strained[link]

    def _strain(self, links: Iterable[Link], now: float) -> None:
        """Note since when links that are up have had less than is promised of them."""
        for link in links:
            if link.up and _is_strained(link):
                self._strained.setdefault(link.id, now)
            else:
                self._strained.pop(link.id, None)


def _is_strained(link: Link) -> bool:
    return link.spare(link.ab) < 0 or link.spare(link.ba) < 0


def _relieved(link: Link) -> Link:
    """A link as if it had what is promised of it."""
    ab, ba = (replace(one, rate=max(one.rate, one.reserved)) for one in (link.ab, link.ba))
    stream = None if link.stream is None else max(link.stream, ab.reserved + ba.reserved)
    return replace(link, ab=ab, ba=ba, stream=stream)


def _offer(link: Link) -> tuple[object, ...]:
    """What decides whether a path may take a link, but for figures."""
    return link.up, link.quantum, link.suites, link.risk_groups
