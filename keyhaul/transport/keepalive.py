"""When to ask a silent peer for a sign of life, when to give it up, and how long to wait before dialling again."""

from __future__ import annotations

from dataclasses import dataclass

from keyhaul.randomness import Source


@dataclass(frozen=True, slots=True)
class KeepaliveTimes:
    """Seconds of silence; `waiting` counts while the peer owes an answer, from the moment it was asked.

    A PING has the difference between `ping` and `dead` for its answer: so long may a process that lives be busy.
    """

    ping_waiting: float = 0.1
    dead_waiting: float = 0.6
    ping_idle: float = 2.0
    dead_idle: float = 4.5


SERVED = KeepaliveTimes(ping_waiting=10.0, dead_waiting=15.0, ping_idle=10.0, dead_idle=15.0)
"""For the end that was dialled: the dialling one is the first to notice."""

_STALL = 0.1
"""A check this late, seconds, means that this process was not running: the peer's answers may lie unread."""


class Keepalive:
    """The silence of one peer; times are given, not read."""

    def __init__(self, times: KeepaliveTimes, now: float) -> None:
        self._times = times
        self._heard = now
        self._asked = now
        self._pinged: float | None = None
        """When a PING went out that nothing has followed, or began to count."""
        self._excused = False
        """Whether this silence was put down to our own standstill, once."""
        self.due = now + times.ping_idle
        """When to check next."""

    def heard(self, now: float) -> None:
        """Something came from the peer."""
        self._heard = now
        self._pinged = None
        self._excused = False

    def asked(self, now: float) -> bool:
        """The peer owes something, and owed nothing before; returns whether `due` is earlier now."""
        self._asked = now
        due = now + self._times.ping_waiting
        if due < self.due:
            self.due = due
            return True
        return False

    def check(self, now: float, *, waiting: bool) -> tuple[bool, bool]:
        """Look at the clock; sets `due`.

        Args:
            now: the time.
            waiting: whether the peer owes something.

        Returns:
            whether to send a PING, and whether the peer is to be given up.
        """
        late = now - self.due
        if late > _STALL and not self._excused:
            self._excused = True
            self._heard = min(now, self._heard + late)
            self._asked = min(now, self._asked + late)
            self._pinged = None if self._pinged is None else now
        times = self._times
        if waiting:
            since, ping_after, dead_after = max(self._heard, self._asked), times.ping_waiting, times.dead_waiting
        else:
            since, ping_after, dead_after = self._heard, times.ping_idle, times.dead_idle
        ping = self._pinged is None and now >= since + ping_after
        if ping:
            self._pinged = now
        if self._pinged is None:
            self.due = since + ping_after
            return False, False
        self.due = max(since + dead_after, self._pinged + dead_after - ping_after)
        return ping, now >= self.due


class Backoff:
    """Delays between attempts: doubling up to a bound, each shortened at random by up to half."""

    def __init__(self, source: Source, *, first: float = 0.05, longest: float = 2.0) -> None:
        self._source = source
        self._first = first
        self._longest = longest
        self._failures = 0

    def reset(self) -> None:
        """The last attempt succeeded."""
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        delay = min(self._longest, self._first * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return delay * (0.5 + int.from_bytes(self._source(4), "big") / 2**33)
