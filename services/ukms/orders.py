"""What one buffer asks the AKMS for: what is wanted now, and ahead of demand; in small pieces while keys are short.

Where the AKMS has told the contract's rate, no more is asked for than it hands out: what it would refuse is not sent.

Sans-IO: time (`now`, seconds of this node's clock) and randomness are arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from keyhaul.randomness import Source, identifier
from keyhaul.transport.messages.access import Purpose
from services.ukms.outlook import Outlook

MAXIMUM_ASKED = 1024
"""Keys in one request to the AKMS."""

MAXIMUM_UNDER_WAY = 16
"""Requests of one buffer to the AKMS at a time."""

STEADY_LIFE = 10.0
"""Seconds for which a request is expected to be under way while keys are short."""

PIECES = 4
"""In how many requests to the AKMS keys that are short are asked for."""

PREFETCH_LIFE = 30.0
"""Seconds for which a prefetch is expected to be under way."""

ANSWER_MARGIN = 0.2
"""Seconds that are left for answering the SAE when the AKMS gives up."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0
"""Seconds between attempts while requests fail; the AKMS may ask for more."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to the AKMS that should go out now."""

    request: str
    number: int
    purpose: Purpose
    until: float
    """When it is given up."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a buffer has, and what it should have."""

    waiting: int
    """Keys that SAEs wait for."""
    first: int
    """Keys of whose turn it is; 0 where nobody waits."""
    since: float
    """Since when one of them waits; infinite where nobody does."""
    until: float
    """When the last of them gives up."""
    stored: int
    """Keys at hand."""
    target: int
    """Keys to have at hand beside those."""


@dataclass(slots=True)
class UnderWay:
    """A request at the AKMS."""

    number: int
    """Keys still to come."""
    purpose: Purpose
    until: float
    since: float


class Orders:
    """The requests of one buffer to the AKMS."""

    def __init__(self, outlook: Outlook) -> None:
        self._outlook = outlook
        self._under_way: dict[str, UnderWay] = {}
        self._not_before = 0.0
        self._pause = FIRST_PAUSE
        self._held_back: float | None = None
        self._awaited = False

    def __len__(self) -> int:
        """Requests under way."""
        return len(self._under_way)

    def keys(self, purpose: Purpose | None = None) -> int:
        """Keys asked for that have not come."""
        return sum(
            request.number for request in self._under_way.values() if purpose is None or request.purpose is purpose
        )

    def plan(self, need: Need, now: float, source: Source) -> list[Ask]:
        """What to ask for now; each is counted as under way until `arrived`, `failed` or its end."""
        for name in [name for name, request in self._under_way.items() if request.until <= now]:
            del self._under_way[name]
            self._outlook.lost()
        self._held_back = None
        asks = [] if now < self._not_before else self._wanted(need, now, source)
        self._outlook.look(self.keys(Purpose.DEMAND) > 0, now)
        return asks

    def wait(self) -> float | None:
        """Seconds after which `plan` would ask for what the contract's rate held back, once: then comes `resume`.

        None: nothing was held back, or the wait has been taken over by somebody.
        """
        if self._held_back is None or self._awaited:
            return None
        self._awaited = True
        return self._held_back

    def resume(self) -> None:
        """What was held back can be asked for."""
        self._awaited = False

    def retry(self) -> None:
        """The pause after a failure is over."""
        self._not_before = 0.0

    def again(self) -> None:
        """The AKMS may have forgotten what it was asked for, or can be reached again."""
        self._under_way.clear()
        self._not_before = 0.0
        self._pause = FIRST_PAUSE

    def arrived(self, request: str, number: int, now: float) -> None:
        """Keys came for a request."""
        self._pause = FIRST_PAUSE
        under_way = self._under_way.get(request)
        self._outlook.arrived(number, now, None if under_way is None else now - under_way.since)
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
        if request not in self._under_way:
            return None
        before = 0
        for name, under_way in self._under_way.items():
            if name == request:
                break
            before += under_way.number
        number = self._under_way.pop(request).number
        if rate > 0:
            self._outlook.limited(rate, number, before, retry_after, now)
        pause = retry_after or self._pause
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        self._not_before = max(self._not_before, now + pause)
        return pause

    def _wanted(self, need: Need, now: float, source: Source) -> list[Ask]:
        wanted = need.waiting + self._outlook.kept(now)
        short = wanted - need.stored - self.keys(Purpose.DEMAND)
        if self._outlook.short(need.since, now):
            return self._ask_steadily(short, max(1, need.first), now, source)
        self._outlook.forget_window()
        asks: list[Ask] = []
        if short > 0:
            until = need.until - ANSWER_MARGIN
            if until > now:
                self._ask(asks, short, Purpose.DEMAND, until, now, source)
        missing = need.target - max(0, need.stored - wanted) - self.keys(Purpose.PREFETCH)
        if missing > 0 and 4 * missing >= need.target:
            self._ask(asks, missing, Purpose.PREFETCH, now + PREFETCH_LIFE, now, source)
        return asks

    def _ask_steadily(self, short: int, least: int, now: float, source: Source) -> list[Ask]:
        """While keys are short: ask for what comes soon, in small pieces, and for nothing ahead of demand."""
        asks: list[Ask] = []
        most = self._outlook.window(now)
        piece = max(least, math.ceil(min(most / PIECES, MAXIMUM_ASKED)))
        while short > 0 and (self.keys(Purpose.DEMAND) < most or not self._under_way):
            number = min(short, piece)
            pause = self._outlook.held_back(self.keys(Purpose.DEMAND), number, now)
            if pause > 0:
                self._held_back = pause
                break
            before = len(asks)
            self._ask(asks, number, Purpose.DEMAND, now + STEADY_LIFE, now, source)
            if len(asks) == before:
                break
            short -= number
        return asks

    def _ask(self, asks: list[Ask], number: int, purpose: Purpose, until: float, now: float, source: Source) -> None:
        while number > 0 and len(self._under_way) < MAXIMUM_UNDER_WAY:
            ask = Ask(identifier(source), min(number, MAXIMUM_ASKED), purpose, until)
            self._under_way[ask.request] = UnderWay(ask.number, purpose, until, now)
            asks.append(ask)
            number -= ask.number
