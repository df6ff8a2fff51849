"""What is in flight at one CKMS, and what follows from each message: pure transitions that return effects.

Sans-IO: time (`now`, seconds of a monotonic clock) and randomness are arguments, sockets are the driver's
(`carrier.py`). No key bits stay here: they pass through a transition into the effect it returns.

A batch that comes in (`Submit` from this node's AKMS, `Forward` from a neighbour) gets a fresh reference and
is in flight until its one outcome is known: the next hop's acknowledgement, the AKMS's answer to a delivery,
a failure to send, or its deadline. Then the outcome goes to where the batch came from, and whatever is heard
of that reference later is ignored.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from dataclasses import dataclass, field

from keyhaul.randomness import Source, label
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.relay import Acknowledge, Forward, RelayFailure, RelayOutcome, Submit
from services.ckms.choice import PathChoice, Ready
from services.ckms.detour import onward
from services.ckms.duplicates import Duplicates
from services.ckms.effects import DeliverBatch, Effect, SendAcknowledge, SendForward, TellOutcome
from services.ckms.forwarding import Entry, ForwardingTable, Hop, Path
from services.ckms.origins import OWN_AKMS, InFlight, Submission, Upstream
from services.ckms.policing import Police

MAXIMUM_BATCH = 1 << 20
"""Bytes of one batch."""

MAXIMUM_REMAINING_MS = 60_000
"""A deadline further away is shortened to this."""

HOP_MARGIN_MS = 10
"""How much earlier the next hop gives up, so that its failure is back before this hop's own deadline."""

_REFERENCE = re.compile(r"[0-9a-f]{16}")
_BATCH = re.compile(r"[0-9a-f]{32}")


def _all_are_up(_neighbour: str, _length: int) -> bool:
    return True


@dataclass(slots=True)
class RelayCounts:
    """What happened since the start."""

    submitted: int = 0
    forwarded: int = 0
    delivered: int = 0
    bytes: int = 0
    duplicates: int = 0
    """Batches that came a second time and were dropped."""
    detoured: int = 0
    """Batches that were sent around a link that is down."""
    strays: int = 0
    """Acknowledgements for nothing in flight: late, doubled, or not this neighbour's to give."""
    failures: dict[RelayFailure, int] = field(default_factory=lambda: dict.fromkeys(RelayFailure, 0))


class Relay:
    """The in-flight table of one CKMS and its transitions.

    Args:
        table: labels and paths.
        choice: the memory of failed paths.
        source: draws references.
        capacity: batches in flight that came from one neighbour, or from this node's AKMS, so that none of them
            keeps others out; sixteen times as many are remembered as duplicates. What would be more is refused as
            busy.
    """

    def __init__(self, table: ForwardingTable, choice: PathChoice, source: Source, *, capacity: int = 4_096) -> None:
        self.counts = RelayCounts()
        self.police = Police(table.places)
        self._table = table
        self._choice = choice
        self._source = source
        self._capacity = capacity
        self._in_flight: dict[str, InFlight] = {}
        self._deadlines: list[tuple[float, str]] = []
        self._from: Counter[str] = Counter()
        self._seen = Duplicates(16 * capacity)

    @property
    def in_flight(self) -> int:
        """How many batches wait for their outcome."""
        return len(self._in_flight)

    def next_deadline(self) -> float | None:
        """When `expire` is due next, None while nothing is in flight (an early time is harmless)."""
        return self._deadlines[0][0] if self._deadlines else None

    def submit(self, request: Submit, ready: Ready, now: float) -> list[Effect]:
        """Take a batch from this node's AKMS; its outcome comes as `TellOutcome`, once.

        Args:
            request: the batch and its destination.
            ready: whether a first link could take so many bytes now; 0: whether it is up.
            now: seconds.

        Raises:
            ServiceError: malformed; conflict (a batch of this name was submitted before); busy.
        """
        if not _BATCH.fullmatch(request.batch):
            raise ServiceError(ErrorCode.MALFORMED, "a batch's name is 32 hexadecimal digits")
        if not 0 < len(request.bits) <= MAXIMUM_BATCH:
            raise ServiceError(ErrorCode.MALFORMED, f"a batch has 1 to {MAXIMUM_BATCH} bytes")
        if request.remaining_ms <= 2 * HOP_MARGIN_MS:
            raise ServiceError(ErrorCode.DEADLINE, "no time is left for this batch")
        if (OWN_AKMS, request.batch) in self._seen:
            raise ServiceError(ErrorCode.CONFLICT, "a batch of this name was submitted before")
        if self._full(OWN_AKMS, now):
            raise ServiceError(ErrorCode.BUSY, "too many batches are in flight", retry_after_ms=100)
        deadline = _deadline(request.remaining_ms, now)
        self._seen.add((OWN_AKMS, request.batch), deadline)
        self.counts.submitted += 1
        paths = self._table.paths_to(request.destination, request.service_class)
        if not paths:
            return [self._settle(Submission(request.batch, None), RelayFailure.NO_PATH, now, now)]
        # Where no link has pads for it now, the batch waits for them at one that is up.
        path = self._choice.choose(paths, len(request.bits), ready, now) or self._choice.choose(paths, 0, ready, now)
        if path is None:
            return [self._settle(Submission(request.batch, None), RelayFailure.UNREACHABLE, now, now)]
        if not self._admits("akms", (path.first.neighbour, path.first.label), path, len(request.bits), now):
            return [self._settle(Submission(request.batch, None), RelayFailure.BUSY, now, now)]
        origin = Submission(request.batch, path)
        return [self._onward(origin, path.first, path.first.label, request.batch, request.bits, now, deadline)]

    def forward(
        self, previous: str, request: Forward, bits: bytes, now: float, ready: Ready = _all_are_up
    ) -> list[Effect]:
        """Take a batch from a neighbour: send it on, around a link that is down, deliver it here, or answer why not.

        A duplicate changes nothing and is not answered. `ready` is asked as in `submit`.

        Raises:
            ServiceError: malformed: without a usable reference it cannot even be answered.
        """
        if not _REFERENCE.fullmatch(request.reference):
            raise ServiceError(ErrorCode.MALFORMED, "a reference is 16 hexadecimal digits")
        if (previous, request.reference) in self._seen:
            self.counts.duplicates += 1
            return []
        origin = Upstream(previous, request.reference)
        deadline = _deadline(request.remaining_ms, now)
        if self._full(previous, now):
            return [self._settle(origin, RelayFailure.BUSY, now, deadline)]
        self._seen.add((previous, request.reference), deadline)
        if not _BATCH.fullmatch(request.batch) or not 0 < len(bits) <= MAXIMUM_BATCH:
            return [self._settle(origin, RelayFailure.REFUSED, now, deadline)]
        if request.remaining_ms <= 0:
            return [self._settle(origin, RelayFailure.DEADLINE, now, deadline)]
        entry = self._table.lookup(request.label, previous)
        if entry is None:
            return [self._settle(origin, RelayFailure.NO_PATH, now, deadline)]
        if not self._admits(previous, (previous, entry.label), entry, len(bits), now):
            return [self._settle(origin, RelayFailure.BUSY, now, deadline)]
        hop = onward(entry, ready)
        if hop is not None:
            self.counts.detoured += hop is entry.detour
            return [self._onward(origin, hop, entry.label, request.batch, bits, now, deadline)]
        reference = self._take(InFlight(origin, None, now, deadline))
        return [DeliverBatch(reference, request.batch, bits, deadline, entry.label)]

    def refuse(self, previous: str, request: Forward, failure: RelayFailure, now: float) -> list[Effect]:
        """Answer a neighbour's batch with a failure without looking at it: this service is stopping."""
        deadline = _deadline(request.remaining_ms, now)
        return [self._settle(Upstream(previous, request.reference), failure, now, deadline)]

    def acknowledge(self, neighbour: str, request: Acknowledge, now: float) -> list[Effect]:
        """Pass on what a neighbour says of batches that were sent to it; what it may not speak of is ignored."""
        effects: list[Effect] = []
        for outcome in request.outcomes:
            found = self._in_flight.get(outcome.reference)
            if found is None or found.next != neighbour:
                self.counts.strays += 1
                continue
            effects.append(self._finish(outcome.reference, found, outcome.failure, now))
        return effects

    def failed(self, reference: str, failure: RelayFailure, now: float) -> list[Effect]:
        """A batch could not be sent on (ignored if its outcome is known already)."""
        found = self._in_flight.get(reference)
        return [] if found is None else [self._finish(reference, found, failure, now)]

    def awaited(self) -> set[str]:
        """The neighbours whose acknowledgement something in flight waits for."""
        return {batch.next for batch in self._in_flight.values() if batch.next is not None}

    def waits(self, reference: str) -> bool:
        """Whether the outcome of a batch is still open."""
        return reference in self._in_flight

    def lost(self, neighbour: str, now: float) -> list[Effect]:
        """The link to a neighbour is down: what waits for its acknowledgement has failed."""
        waiting = [reference for reference, batch in self._in_flight.items() if batch.next == neighbour]
        failure = RelayFailure.UNREACHABLE
        return [self._finish(reference, self._in_flight[reference], failure, now) for reference in waiting]

    def finished(self, reference: str, failure: RelayFailure | None, now: float) -> list[Effect]:
        """This node's AKMS took a batch, or refused it (ignored if its deadline has passed)."""
        found = self._in_flight.get(reference)
        if found is None or found.next is not None:
            return []
        if failure is None:
            self.counts.delivered += 1
        return [self._finish(reference, found, failure, now)]

    def expire(self, now: float) -> list[Effect]:
        """Give up what is late, and forget duplicates of what ended long ago."""
        effects: list[Effect] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, reference = heapq.heappop(self._deadlines)
            found = self._in_flight.get(reference)
            if found is not None and found.deadline <= now:
                effects.append(self._finish(reference, found, RelayFailure.DEADLINE, now))
        self._seen.forget(now)
        return effects

    def _onward(
        self, origin: Submission | Upstream, hop: Hop, flow: str, batch: str, bits: bytes, now: float, deadline: float
    ) -> Effect:
        remaining = int(1000 * (deadline - now)) - HOP_MARGIN_MS
        if remaining <= 0:
            return self._settle(origin, RelayFailure.DEADLINE, now, deadline)
        reference = self._take(InFlight(origin, hop.neighbour, now, deadline))
        self.counts.forwarded += 1
        self.counts.bytes += len(bits)
        message = Forward(label=hop.label, reference=reference, batch=batch, remaining_ms=remaining)
        return SendForward(hop.neighbour, message, bits, deadline - HOP_MARGIN_MS / 1000, flow)

    def _take(self, batch: InFlight) -> str:
        reference = label(self._source)
        while reference in self._in_flight:
            reference = label(self._source)
        self._in_flight[reference] = batch
        self._from[batch.source] += 1
        heapq.heappush(self._deadlines, (batch.deadline, reference))
        return reference

    def _finish(self, reference: str, batch: InFlight, failure: RelayFailure | None, now: float) -> Effect:
        del self._in_flight[reference]
        self._from[batch.source] -= 1
        return self._settle(batch.origin, failure, now, batch.deadline, batch.since)

    def _settle(
        self,
        origin: Submission | Upstream,
        failure: RelayFailure | None,
        now: float,
        deadline: float,
        since: float | None = None,
    ) -> Effect:
        if failure is not None:
            self.counts.failures[failure] += 1
        if isinstance(origin, Upstream):
            return SendAcknowledge(origin.neighbour, RelayOutcome(origin.reference, failure), deadline)
        if origin.path is not None:
            sent_at = now if since is None else since
            # A refusal is the far AKMS's: the path itself led there.
            if failure is None or failure is RelayFailure.REFUSED:
                self._choice.worked(origin.path, sent_at)
            # One that is too busy is no worse than the others: to go round it would only carry the load elsewhere.
            elif failure is RelayFailure.BUSY and not self._choice.on_probation(origin.path):
                pass
            else:
                self._choice.failed(origin.path, sent_at, now)
        return TellOutcome(origin.batch, failure)

    def _full(self, source: str, now: float) -> bool:
        return self._from[source] >= self._capacity or self._seen.full(source, now)

    def _admits(self, source: str, place: tuple[str, str], limited: Entry | Path, length: int, now: float) -> bool:
        """Hold a place of the table to what it may carry."""
        if self.police.admits(place, limited.limit, length, now):
            return True
        self.police.refused(source, limited.service_class, length)
        return False


def _deadline(remaining_ms: int, now: float) -> float:
    return now + min(max(remaining_ms, 0), MAXIMUM_REMAINING_MS) / 1000
