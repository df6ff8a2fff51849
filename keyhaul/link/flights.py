"""Sealed messages of one direction whose fate is open: what the receiver must not burn yet (sans-IO).

Pad below everything that is in flight, and below keys that the receiver may not have read yet, will never be asked for
any more. The receiver is told so in each `link.control`, and burns what it never got of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from keyhaul.link.channel import RequestId
from keyhaul.link.window import WINDOW_SIZE
from keyhaul.transport.messages.link import Stream

ANSWER_LIFE = 15.0
"""Seconds after which an answer has arrived or never will: nothing tells its sender."""


@dataclass(slots=True)
class Flight:
    """A sealed message whose fate is open."""

    id: RequestId
    stream: Stream
    offset: int
    key_place: tuple[Stream, int] | None


class Flights:
    """What is in flight in one session."""

    def __init__(self) -> None:
        self._flights: dict[int, Flight] = {}
        self._answers: deque[tuple[float, Flight]] = deque()
        """Answers that may still be under way, and until when."""
        self._keys: dict[tuple[Stream, int], bool] = {}
        """Places of keys that outlive a message, and whether the receiver has shown that it read them."""

    def begin(self, flight: Flight) -> None:
        """A message was sealed."""
        if flight.key_place is not None:
            self._keys.setdefault(flight.key_place, False)
        self._flights[flight.id.sequence] = flight

    def finished(self, flight: Flight, *, accepted: bool) -> None:
        """A message is no longer in flight; `accepted` when the receiver showed that it opened it."""
        if self._flights.get(flight.id.sequence) is flight:
            del self._flights[flight.id.sequence]
            if accepted and flight.key_place in self._keys:
                self._keys[flight.key_place] = True

    def answer(self, flight: Flight, now: float) -> None:
        """An answer leaves; as nobody confirms it, it counts as in flight for a while, at most a window long."""
        self._answers.append((now + ANSWER_LIFE, flight))
        self.expire(now)
        while len(self._answers) > WINDOW_SIZE:
            self.finished(self._answers.popleft()[1], accepted=False)

    def expire(self, now: float) -> None:
        """Answers that left long ago have arrived, or never will."""
        while self._answers and self._answers[0][0] <= now:
            self.finished(self._answers.popleft()[1], accepted=False)

    def end(self) -> None:
        """The session is over: nothing of it is in flight."""
        self._flights.clear()
        self._answers.clear()

    def finished_below(self, stream: Stream, position: int) -> int:
        """The offset of a stream below which nothing is in flight; `position`: where its unused pad begins."""
        flown = {flight.key_place for flight in self._flights.values()}
        latest = {place[0]: place for place in self._keys if place[1] >= 0}
        self._keys = {
            place: read for place, read in self._keys.items() if place in flown or place == latest.get(place[0])
        }
        held = [flight.offset for flight in self._flights.values() if flight.stream is stream and flight.offset >= 0]
        held += [offset for (of, offset), read in self._keys.items() if of is stream and not read and offset >= 0]
        return min(held, default=position)
