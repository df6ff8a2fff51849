"""Keys at hand for each master, set of slaves, size and class; who waits for more; what to ask the AKMS for.

Sans-IO: time (`now`, seconds of this node's clock) and randomness are arguments. A buffer is an index: it holds
key IDs and expiry times, never key bits. What it counts is decided for good by the store; the buffer only says
which keys to try first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from keyhaul.identity.names import SaeId
from keyhaul.keys.material import KeyId
from keyhaul.randomness import Source, identifier
from keyhaul.transport.messages.access import Purpose

MAXIMUM_ASKED = 1024
"""Keys in one request to the AKMS."""

MAXIMUM_UNDER_WAY = 16
"""Requests of one buffer to the AKMS at a time."""

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


@dataclass(frozen=True, slots=True)
class Stored:
    """A key at hand."""

    key_id: KeyId
    expires: float


@dataclass(frozen=True, slots=True)
class Allotment:
    """Keys for a waiting request."""

    waiting: Waiting
    keys: tuple[Stored, ...]


class BufferFull(Exception):
    """No further request can wait."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How far to fetch ahead of demand; `maximum` 0: not at all."""

    minimum: int
    maximum: int
    horizon: float
    """Seconds of recent demand to keep."""


class Demand:
    """An exponentially weighted rate of keys asked for, with `horizon` seconds as its time constant."""

    def __init__(self, horizon: float) -> None:
        self._constant = max(horizon, 0.1)
        self._level = 0.0
        self._at = 0.0
        self.last = -math.inf
        """When keys were last asked for."""

    def count(self, number: int, now: float) -> None:
        """Keys were asked for."""
        self._decay(now)
        self._level += number
        self.last = now

    def rate(self, now: float) -> float:
        """Keys per second of late."""
        self._decay(now)
        return self._level / self._constant

    def _decay(self, now: float) -> None:
        passed = max(0.0, now - self._at)
        self._level *= math.exp(-passed / self._constant)
        self._at = now


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
    _stored: deque[Stored] = field(default_factory=deque)
    _waiting: deque[Waiting] = field(default_factory=deque)
    _under_way: dict[str, UnderWay] = field(default_factory=dict)
    _not_before: float = 0.0
    _pause: float = FIRST_PAUSE

    @property
    def stored(self) -> int:
        """Keys at hand."""
        return len(self._stored)

    @property
    def waiting(self) -> int:
        """SAE requests that wait."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing is at hand, awaited or under way."""
        return not (self._stored or self._waiting or self._under_way)

    def under_way(self, purpose: Purpose | None = None) -> int:
        """Keys asked for that have not come."""
        return sum(
            request.number for request in self._under_way.values() if purpose is None or request.purpose is purpose
        )

    def take(self, number: int, now: float) -> tuple[Stored, ...] | None:
        """Take keys out, all or none; None where there are too few or others wait already."""
        self._drop_expired(now)
        if self._waiting or len(self._stored) < number:
            return None
        return self._pop(number)

    def wait(self, number: int, deadline: float) -> Waiting:
        """Wait for keys.

        Raises:
            BufferFull: too many wait already.
        """
        if len(self._waiting) >= MAXIMUM_WAITING:
            raise BufferFull
        waiting = Waiting(number, deadline)
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
        while self._waiting and len(self._stored) + len(fresh) >= self._waiting[0].number:
            waiting = self._waiting.popleft()
            old = self._pop(min(waiting.number, len(self._stored)))
            new = tuple(fresh.popleft() for _ in range(waiting.number - len(old)))
            allotments.append(Allotment(waiting, old + new))
        return allotments, list(fresh)

    def discard(self, key_ids: set[KeyId]) -> None:
        """Keys were voided."""
        self._stored = deque(stored for stored in self._stored if stored.key_id not in key_ids)

    def plan(self, now: float, source: Source) -> list[Ask]:
        """What to ask the AKMS for now; each is counted as under way until `arrived`, `failed` or its end."""
        self._drop_expired(now)
        for name in [name for name, request in self._under_way.items() if request.until <= now]:
            del self._under_way[name]
        if now < self._not_before:
            return []
        asks: list[Ask] = []
        wanted = sum(waiting.number for waiting in self._waiting)
        short = wanted - self.stored - self.under_way(Purpose.DEMAND)
        if short > 0:
            until = max(waiting.deadline for waiting in self._waiting) - ANSWER_MARGIN
            if until > now:
                self._ask(asks, short, Purpose.DEMAND, until, source)
        target = self.target(now)
        missing = target - max(0, self.stored - wanted) - self.under_way(Purpose.PREFETCH)
        if missing > 0 and 4 * missing >= target:
            self._ask(asks, missing, Purpose.PREFETCH, now + PREFETCH_LIFE, source)
        return asks

    def target(self, now: float) -> int:
        """Keys to keep at hand now."""
        if now - self.demand.last > IDLE:
            return 0
        most = min(self.policy.maximum, self.stored_limit)
        return min(most, max(self.policy.minimum, round(self.policy.horizon * self.demand.rate(now))))

    def arrived(self, request: str, number: int) -> None:
        """Keys came for a request."""
        self._pause = FIRST_PAUSE
        under_way = self._under_way.get(request)
        if under_way is not None:
            under_way.number -= number
            if under_way.number <= 0:
                del self._under_way[request]

    def failed(self, request: str, retry_after: float, now: float) -> float | None:
        """A request failed: return for how many seconds nothing is asked; None where it was not under way."""
        if self._under_way.pop(request, None) is None:
            return None
        pause = max(self._pause, retry_after)
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        self._not_before = max(self._not_before, now + pause)
        return pause

    def _ask(self, asks: list[Ask], number: int, purpose: Purpose, until: float, source: Source) -> None:
        while number > 0 and len(self._under_way) < MAXIMUM_UNDER_WAY:
            ask = Ask(identifier(source), min(number, MAXIMUM_ASKED), purpose, until)
            self._under_way[ask.request] = UnderWay(ask.number, purpose, until)
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
