"""Keys at hand for one master, set of slaves, size and class, and who of those who want them gets which.

Who waits is in `waiting`, what is asked of the AKMS in `orders`, what is set aside in `leases`, and when keys will
come, and for whom they are kept until then, in `outlook`.

Sans-IO: time (`now`, seconds of this node's clock) and randomness are arguments. A buffer is an index of what the
store holds, and its lease is what of that is set aside to be handed out at once. What the index counts is decided for
good by the store; the buffer only says which keys to try first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from keyhaul.identity.names import SaeId
from keyhaul.randomness import Source
from keyhaul.transport.messages.access import Purpose
from services.ukms.leases import Demand, Lease, Leased, Stored
from services.ukms.orders import Ask, Need, Orders
from services.ukms.outlook import QUEUE, Outlook
from services.ukms.waiting import Line, Waiting

IDLE = 3600.0
"""Seconds after the last request for which a buffer is kept at its minimum."""


@dataclass(frozen=True, slots=True)
class BufferKey:
    """What the keys of one buffer have in common."""

    master: SaeId
    slaves: frozenset[SaeId]
    size: int
    """Bits."""
    service_class: str


@dataclass(frozen=True, slots=True)
class Taken:
    """Keys taken out of a buffer for one request."""

    leased: tuple[Leased, ...]
    """Set aside before."""
    stored: tuple[Stored, ...]
    """These need a transaction first; where there are any, those set aside are in hand until then."""


@dataclass(frozen=True, slots=True)
class Allotment:
    """Keys for a waiting request."""

    waiting: Waiting
    keys: tuple[Stored, ...]
    leased: tuple[Leased, ...] = ()
    """Of keys set aside before; they come first."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How far to fetch ahead of demand; `maximum` 0: not at all."""

    minimum: int
    maximum: int
    horizon: float
    """Seconds of recent demand to keep."""


@dataclass(slots=True)
class Buffer:
    """One buffer."""

    key: BufferKey
    policy: Policy
    slaves: tuple[SaeId, ...]
    """In the order in which they are asked for."""
    demand: Demand
    touched: float
    """When the buffer was last looked up."""
    stored_limit: int = 0
    """Keys that the contract lets the UKMS keep ahead of demand."""
    lease: Lease = field(default_factory=Lease)
    outlook: Outlook = field(default_factory=Outlook)
    orders: Orders = field(init=False)
    _stored: deque[Stored] = field(default_factory=deque)
    _line: Line = field(default_factory=Line)

    def __post_init__(self) -> None:
        self.orders = Orders(self.outlook)

    @property
    def stored(self) -> int:
        """Keys at hand, with those set aside."""
        return len(self._stored) + len(self.lease) + len(self.lease.coming)

    @property
    def waiting(self) -> int:
        """SAE requests that wait."""
        return len(self._line)

    @property
    def idle(self) -> bool:
        """Whether nothing is at hand, awaited or under way."""
        return not (self._stored or self._line or self.orders) and self.lease.empty

    def under_way(self, purpose: Purpose | None = None) -> int:
        """Keys asked for that have not come."""
        return self.orders.keys(purpose)

    def take(self, number: int, now: float, *, promised: bool = False) -> Taken | None:
        """Take keys out, all or none; None where there are too few, others come first, or they are kept for others."""
        if not self._line.comes_first(promised, now):
            return None
        kept = 0 if promised else self.outlook.kept_now(now)
        if kept and self.stored - number < kept:
            return None
        leased = self.lease.take(number, now)
        if len(leased) == number:
            return Taken(leased, ())
        self._drop_expired(now)
        if len(leased) + len(self._stored) < number:
            self.lease.put_back(leased)
            return None
        self.lease.keep_in_hand(leased)
        return Taken(leased, self._pop(number - len(leased)))

    def set_aside(self, now: float) -> tuple[Stored, ...]:
        """Take out what should be set aside now, and count it as coming: `lease.land` follows in any case."""
        number = 0 if self._line else self.lease.wanted(now)
        if number:
            self._drop_expired(now)
            self.lease.begin(self._pop(min(number, len(self._stored))))
        return self.lease.coming if number else ()

    def redeem(self, asker: Hashable, number: int, now: float) -> bool:
        """Whether somebody who comes for keys was told to: then he comes before those who were told nothing."""
        return self.outlook.redeem(asker, number, now)

    def refused(self, asker: Hashable, number: int, now: float) -> int:
        """Seconds after which one who was told nothing is to come back, as keys are short; 0: he may take or wait."""
        if not self.outlook.short(self._line.since, now):
            return 0
        if self.outlook.wait(number, self._line.wanted, self.stored, now, QUEUE / 2) <= QUEUE / 2:
            return 0
        return self.come_back(asker, number, now)

    def come_back(self, asker: Hashable, number: int, now: float, at_least: float = 0.0) -> int:
        """Seconds after which somebody is to come back who has waited in vain."""
        wait = self.outlook.wait(number, self._line.wanted, self.stored, now)
        return self.outlook.come_back(asker, number, max(wait, at_least), now)

    def overlong(self, now: float) -> list[Waiting]:
        """Stop waiting, whose turn is last first, where it would take far longer than somebody should wait."""
        if not self.outlook.short(self._line.since, now):
            return []
        # The first one's request is what tells when keys come again, where nobody else does.
        least, failed = 0 if self.outlook.is_limited(now) else 1, []
        missing = self._line.wanted - self.stored
        while len(self._line) > least and self.outlook.queue(missing, now) > 2 * QUEUE:
            failed.append(self._line.last())
            missing -= failed[-1].number
        return failed

    def wait(
        self,
        number: int,
        deadline: float,
        now: float = math.inf,
        asker: Hashable = "",
        *,
        promised: bool = False,
    ) -> Waiting:
        """Wait for keys.

        Raises:
            BufferFull: too many wait already.
        """
        waiting = Waiting(number, deadline, now, asker, promised)
        self._line.join(waiting)
        return waiting

    def forget(self, waiting: Waiting) -> None:
        """A waiting request was given up or answered."""
        self._line.forget(waiting)

    def fail_unserved(self) -> list[Waiting]:
        """Stop waiting, whose turn is last first, until what is at hand and under way suffices for the others."""
        failed = []
        coming = self.stored + self.under_way(Purpose.DEMAND)
        while self._line and self._line.wanted > coming:
            failed.append(self._line.last())
        return failed

    def fail_all(self) -> list[Waiting]:
        """Stop waiting."""
        return self._line.clear()

    def put(self, keys: Iterable[Stored]) -> None:
        """Keys came durably into the store."""
        self._stored.extend(keys)

    def put_back(self, keys: Iterable[Stored]) -> None:
        """Keys that were taken have not been issued."""
        self._stored.extendleft(reversed(tuple(keys)))

    def wait_again(self, waiting: Iterable[Waiting]) -> None:
        """Requests for which keys were allotted did not get them: they come first again."""
        self._line.again(waiting)

    def allot(self, arriving: Iterable[Stored], now: float) -> tuple[list[Allotment], list[Stored]]:
        """Give what is at hand and what arrives to those who wait; return that, and what is left of the arriving.

        What is at hand and not allotted stays where it is; what is left of the arriving keys is for `put`, once
        they are durable.
        """
        self._drop_expired(now)
        fresh = deque(arriving)
        allotments = []
        kept = self.outlook.kept_now(now)
        while (first := self._line.first) is not None:
            left = len(self._stored) + len(self.lease) + len(fresh) - first.number
            if left < kept and not first.is_first(now):
                break
            leased = self.lease.take(first.number, now)
            short = first.number - len(leased)
            if len(self._stored) + len(fresh) < short:
                self.lease.put_back(leased)
                break
            old = self._pop(min(short, len(self._stored)))
            new = tuple(fresh.popleft() for _ in range(short - len(old)))
            self.lease.keep_in_hand(leased)
            allotments.append(Allotment(self._line.next(), old + new, leased))
        return allotments, list(fresh)

    def discard(self, chosen: Callable[[Stored], bool]) -> list[Stored]:
        """Take out, for good, the chosen keys that are not set aside."""
        found = [stored for stored in self._stored if chosen(stored)]
        if found:
            self._stored = deque(stored for stored in self._stored if not chosen(stored))
        return found

    def plan(self, now: float, source: Source) -> list[Ask]:
        """What to ask the AKMS for now."""
        self._drop_expired(now)
        line, first = self._line, self._line.first
        need = Need(
            waiting=line.wanted,
            first=0 if first is None else first.number,
            since=line.since,
            until=line.until,
            stored=self.stored,
            target=self.target(now),
        )
        return self.orders.plan(need, now, source)

    def target(self, now: float) -> int:
        """Keys to keep at hand now."""
        if now - self.demand.last > IDLE:
            return 0
        most = min(self.policy.maximum, self.stored_limit)
        return min(most, max(self.policy.minimum, round(self.policy.horizon * self.demand.rate(now))))

    def _pop(self, number: int) -> tuple[Stored, ...]:
        return tuple(self._stored.popleft() for _ in range(number))

    def _drop_expired(self, now: float) -> None:
        while self._stored and self._stored[0].expires <= now:
            self._stored.popleft()
