"""Keys at hand for each master, set of slaves, size and class; who waits for more; what to ask the AKMS for.

Sans-IO: time (`now`, seconds of this node's clock) and randomness are arguments. A buffer is an index of what the
store holds, and its lease is what of that is set aside to be handed out at once. What the index counts is decided for
good by the store; the buffer only says which keys to try first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from keyhaul.identity.names import SaeId
from keyhaul.randomness import Source, identifier
from keyhaul.transport.messages.access import Purpose
from services.ukms.leases import Demand, Lease, Leased, Stored
from services.ukms.outlook import QUEUE, Outlook

MAXIMUM_ASKED = 1024
"""Keys in one request to the AKMS."""

MAXIMUM_UNDER_WAY = 16
"""Requests of one buffer to the AKMS at a time."""

STEADY_LIFE = 10.0
"""Seconds for which a request is expected to be under way while keys are short."""

PIECES = 4
"""In how many requests to the AKMS keys that are short are asked for."""

MAXIMUM_WAITING = 256
"""SAE requests that may wait in one buffer."""

MAXIMUM_BUFFERS = 4096

IDLE = 3600.0
"""Seconds after the last request for which a buffer is kept at its minimum."""

SHORT_IDLE = 60.0
"""The same for an empty buffer when there are as many as there may be."""

PREFETCH_LIFE = 30.0
"""Seconds for which a prefetch is expected to be under way."""

ANSWER_MARGIN = 0.2
"""Seconds that are left for answering the SAE when the AKMS gives up."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0
"""Seconds between attempts while requests fail; the AKMS may ask for more."""


@dataclass(frozen=True, slots=True)
class BufferKey:
    """What the keys of one buffer have in common."""

    master: SaeId
    slaves: frozenset[SaeId]
    size: int
    """Bits."""
    service_class: str


@dataclass(eq=False, slots=True)
class Waiting:
    """An SAE's request that waits for keys."""

    number: int
    deadline: float
    since: float = math.inf


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to the AKMS that should go out now."""

    request: str
    number: int
    purpose: Purpose
    until: float
    """When it is given up."""


@dataclass(slots=True)
class UnderWay:
    """A request at the AKMS."""

    number: int
    """Keys still to come."""
    purpose: Purpose
    until: float
    since: float


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


class BufferFull(Exception):
    """No further request can wait."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How far to fetch ahead of demand; `maximum` 0: not at all."""

    minimum: int
    maximum: int
    horizon: float
    """Seconds of recent demand to keep."""


@dataclass(slots=True)
class Buffer:
    """One buffer. Waiting requests are served strictly in the order in which they came."""

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
    _stored: deque[Stored] = field(default_factory=deque)
    _waiting: deque[Waiting] = field(default_factory=deque)
    _under_way: dict[str, UnderWay] = field(default_factory=dict)
    _not_before: float = 0.0
    _pause: float = FIRST_PAUSE

    @property
    def stored(self) -> int:
        """Keys at hand, with those set aside."""
        return len(self._stored) + len(self.lease) + len(self.lease.coming)

    @property
    def waiting(self) -> int:
        """SAE requests that wait."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing is at hand, awaited or under way."""
        return not (self._stored or self._waiting or self._under_way) and self.lease.empty

    def under_way(self, purpose: Purpose | None = None) -> int:
        """Keys asked for that have not come."""
        return sum(
            request.number for request in self._under_way.values() if purpose is None or request.purpose is purpose
        )

    def take(self, number: int, now: float) -> Taken | None:
        """Take keys out, all or none; None where there are too few or others wait already."""
        if self._waiting:
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
        number = 0 if self._waiting else self.lease.wanted(now)
        if number:
            self._drop_expired(now)
            self.lease.begin(self._pop(min(number, len(self._stored))))
        return self.lease.coming if number else ()

    def refused(self, number: int, now: float) -> int:
        """Seconds after which somebody is to come back because keys are short now; 0: he may take or wait."""
        if self.outlook.redeem(number, now) or not self.outlook.short(self._first(), now):
            return 0
        wanted = sum(waiting.number for waiting in self._waiting)
        if self.outlook.wait(number, wanted, self.stored, now, QUEUE / 2) <= QUEUE / 2:
            return 0
        return self.come_back(number, now)

    def come_back(self, number: int, now: float, at_least: float = 0.0) -> int:
        """Seconds after which somebody is to come back who has waited in vain."""
        wanted = sum(waiting.number for waiting in self._waiting)
        wait = self.outlook.wait(number, wanted, self.stored, now)
        return self.outlook.come_back(number, max(wait, at_least), now)

    def overlong(self, now: float) -> list[Waiting]:
        """Stop waiting, last come first, where it would take far longer than somebody should wait."""
        if not self.outlook.short(self._first(), now):
            return []
        # The first one's request is what tells when keys come again, where nobody else does.
        least, failed = 0 if self.outlook.is_limited(now) else 1, []
        missing = sum(waiting.number for waiting in self._waiting) - self.stored
        while len(self._waiting) > least and self.outlook.queue(missing, now) > 2 * QUEUE:
            failed.append(self._waiting.pop())
            missing -= failed[-1].number
        return failed

    def wait(self, number: int, deadline: float, now: float = math.inf) -> Waiting:
        """Wait for keys.

        Raises:
            BufferFull: too many wait already.
        """
        if len(self._waiting) >= MAXIMUM_WAITING:
            raise BufferFull
        waiting = Waiting(number, deadline, now)
        self._waiting.append(waiting)
        return waiting

    def forget(self, waiting: Waiting) -> None:
        """A waiting request was given up or answered."""
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def fail_unserved(self) -> list[Waiting]:
        """Stop waiting, last come first, until what is at hand and under way suffices for the others."""
        failed = []
        coming = self.stored + self.under_way(Purpose.DEMAND)
        while self._waiting and sum(waiting.number for waiting in self._waiting) > coming:
            failed.append(self._waiting.pop())
        return failed

    def fail_all(self) -> list[Waiting]:
        """Stop waiting."""
        failed = list(self._waiting)
        self._waiting.clear()
        return failed

    def ask_again(self) -> None:
        """The AKMS may have forgotten what it was asked for, or can be reached again."""
        self._under_way.clear()
        self._not_before = 0.0
        self._pause = FIRST_PAUSE

    def resume(self) -> None:
        """The pause after a failure is over."""
        self._not_before = 0.0

    def put(self, keys: Iterable[Stored]) -> None:
        """Keys came durably into the store."""
        self._stored.extend(keys)

    def put_back(self, keys: Iterable[Stored]) -> None:
        """Keys that were taken have not been issued."""
        self._stored.extendleft(reversed(tuple(keys)))

    def wait_again(self, waiting: Iterable[Waiting]) -> None:
        """Requests for which keys were allotted did not get them: they come first again."""
        self._waiting.extendleft(reversed(tuple(waiting)))

    def allot(self, arriving: Iterable[Stored], now: float) -> tuple[list[Allotment], list[Stored]]:
        """Give what is at hand and what arrives to those who wait; return that, and what is left of the arriving.

        What is at hand and not allotted stays where it is; what is left of the arriving keys is for `put`, once
        they are durable.
        """
        self._drop_expired(now)
        fresh = deque(arriving)
        allotments = []
        while self._waiting:
            number = self._waiting[0].number
            leased = self.lease.take(number, now)
            short = number - len(leased)
            if len(self._stored) + len(fresh) < short:
                self.lease.put_back(leased)
                break
            old = self._pop(min(short, len(self._stored)))
            new = tuple(fresh.popleft() for _ in range(short - len(old)))
            self.lease.keep_in_hand(leased)
            allotments.append(Allotment(self._waiting.popleft(), old + new, leased))
        return allotments, list(fresh)

    def discard(self, chosen: Callable[[Stored], bool]) -> list[Stored]:
        """Take out, for good, the chosen keys that are not set aside."""
        found = [stored for stored in self._stored if chosen(stored)]
        if found:
            self._stored = deque(stored for stored in self._stored if not chosen(stored))
        return found

    def plan(self, now: float, source: Source) -> list[Ask]:
        """What to ask the AKMS for now; each is counted as under way until `arrived`, `failed` or its end."""
        self._drop_expired(now)
        for name in [name for name, request in self._under_way.items() if request.until <= now]:
            del self._under_way[name]
            self.outlook.lost()
        asks = [] if now < self._not_before else self._wanted(now, source)
        self.outlook.look(self.under_way(Purpose.DEMAND) > 0, now)
        return asks

    def _wanted(self, now: float, source: Source) -> list[Ask]:
        asks: list[Ask] = []
        wanted = sum(waiting.number for waiting in self._waiting) + self.outlook.kept(now)
        short = wanted - self.stored - self.under_way(Purpose.DEMAND)
        if self.outlook.short(self._first(), now):
            return self._ask_steadily(short, now, source)
        self.outlook.forget_window()
        if short > 0:
            until = max(waiting.deadline for waiting in self._waiting) - ANSWER_MARGIN
            if until > now:
                self._ask(asks, short, Purpose.DEMAND, until, now, source)
        target = self.target(now)
        missing = target - max(0, self.stored - wanted) - self.under_way(Purpose.PREFETCH)
        if missing > 0 and 4 * missing >= target:
            self._ask(asks, missing, Purpose.PREFETCH, now + PREFETCH_LIFE, now, source)
        return asks

    def target(self, now: float) -> int:
        """Keys to keep at hand now."""
        if now - self.demand.last > IDLE:
            return 0
        most = min(self.policy.maximum, self.stored_limit)
        return min(most, max(self.policy.minimum, round(self.policy.horizon * self.demand.rate(now))))

    def arrived(self, request: str, number: int, now: float) -> None:
        """Keys came for a request."""
        self._pause = FIRST_PAUSE
        under_way = self._under_way.get(request)
        self.outlook.arrived(number, now, None if under_way is None else now - under_way.since)
        if under_way is not None:
            under_way.number -= number
            if under_way.number <= 0:
                del self._under_way[request]

    def failed(self, request: str, retry_after: float, now: float, rate: float = 0.0) -> float | None:
        """A request failed: return for how many seconds nothing is asked; None where it was not under way.

        Args:
            request: its name.
            retry_after: seconds after which the AKMS would serve it; 0: it did not say.
            now: seconds.
            rate: keys a second that the AKMS hands out, where the request was beyond that.
        """
        under_way = self._under_way.pop(request, None)
        if under_way is None:
            return None
        if rate > 0:
            self.outlook.limited(rate, under_way.number, retry_after, now)
        pause = retry_after or self._pause
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        self._not_before = max(self._not_before, now + pause)
        return pause

    def _ask_steadily(self, short: int, now: float, source: Source) -> list[Ask]:
        """While keys are short: ask for what comes soon, in small pieces, and for nothing ahead of demand."""
        asks: list[Ask] = []
        most = self.outlook.window(now)
        least = self._waiting[0].number if self._waiting else 1
        piece = max(least, math.ceil(min(most / PIECES, MAXIMUM_ASKED)))
        while short > 0 and (self.under_way(Purpose.DEMAND) < most or not self._under_way):
            before = len(asks)
            self._ask(asks, min(short, piece), Purpose.DEMAND, now + STEADY_LIFE, now, source)
            if len(asks) == before:
                break
            short -= min(short, piece)
        return asks

    def _first(self) -> float:
        """Since when the first waits who does."""
        return self._waiting[0].since if self._waiting else math.inf

    def _ask(self, asks: list[Ask], number: int, purpose: Purpose, until: float, now: float, source: Source) -> None:
        while number > 0 and len(self._under_way) < MAXIMUM_UNDER_WAY:
            ask = Ask(identifier(source), min(number, MAXIMUM_ASKED), purpose, until)
            self._under_way[ask.request] = UnderWay(ask.number, purpose, until, now)
            asks.append(ask)
            number -= ask.number

    def _pop(self, number: int) -> tuple[Stored, ...]:
        return tuple(self._stored.popleft() for _ in range(number))

    def _drop_expired(self, now: float) -> None:
        while self._stored and self._stored[0].expires <= now:
            self._stored.popleft()


class Buffers:
    """All buffers of a UKMS."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._buffers: dict[BufferKey, Buffer] = {}

    def __iter__(self) -> Iterator[Buffer]:
        return iter(tuple(self._buffers.values()))

    def __len__(self) -> int:
        return len(self._buffers)

    def find(self, key: BufferKey) -> Buffer | None:
        """The buffer, None where there is none yet."""
        return self._buffers.get(key)

    def buffer(self, key: BufferKey, slaves: tuple[SaeId, ...], now: float) -> Buffer:
        """The buffer, made where there is none.

        Raises:
            BufferFull: there are as many buffers as there may be, none of them idle.
        """
        buffer = self._buffers.get(key)
        if buffer is None:
            if len(self._buffers) >= MAXIMUM_BUFFERS:
                self.drop_idle(now, SHORT_IDLE)
            if len(self._buffers) >= MAXIMUM_BUFFERS:
                raise BufferFull
            buffer = Buffer(key, self._policy, slaves, Demand(self._policy.horizon), now)
            self._buffers[key] = buffer
        buffer.touched = now
        return buffer

    def of(self, master: SaeId, slaves: frozenset[SaeId]) -> Iterator[Buffer]:
        """The buffers of a master whose sets have one of these slaves (none given: all of the master's)."""
        return (
            buffer
            for buffer in self
            if buffer.key.master == master and (not slaves or not slaves.isdisjoint(buffer.key.slaves))
        )

    def drop_idle(self, now: float, idle: float = IDLE) -> None:
        """Forget buffers in which there is nothing and that nobody looked up for `idle` seconds."""
        self._buffers = {
            key: buffer for key, buffer in self._buffers.items() if not (buffer.idle and now - buffer.touched > idle)
        }
