"""What is in flight at one CKMS, and what follows from each message: pure transitions that return effects.

Sans-IO: time (`now`, seconds of a monotonic clock) and randomness are arguments, sockets are the driver's
(`carrier.py`). No key bits stay here: they pass through a transition into the effect it returns.

A batch that comes in (`Submit` from this node's AKMS, `Forward` from a neighbour) gets a fresh reference and
is in flight until its one outcome is known: the next hop's acknowledgement, the AKMS's answer to a delivery,
a failure to send, or its deadline. Then the outcome goes to where the batch came from, and whatever is heard
of that reference later is ignored.

A batch of class split leaves in shares, each a batch of its own to all nodes in between, and has arrived when all of
them have. When one fails, so has the batch, and no share of it is ever sent again. Where their paths end, shares are in
flight until their set is complete and the AKMS has answered, or until they are given up (`combining`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from keyhaul.keys.grants import SPLIT
from keyhaul.randomness import Source
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.relay import Acknowledge, Expect, Forward, RelayFailure, RelayOutcome, Submit
from services.ckms.bounds import HOP_MARGIN_MS, check, deadline_of, fits, onward_ms
from services.ckms.choice import PathChoice, Ready
from services.ckms.combining import Combining, Given, Share, Spoiled, Whole
from services.ckms.counts import RelayCounts
from services.ckms.detour import onward
from services.ckms.effects import DeliverBatch, Effect, SendAcknowledge, SendForward, StopSending, TellOutcome
from services.ckms.flights import Flights
from services.ckms.forwarding import Entry, ForwardingTable, Hop, Path
from services.ckms.origins import OWN_AKMS, InFlight, Own, Submission, Upstream
from services.ckms.policing import Police
from services.ckms.sending import paths_for, pieces_of

_REFERENCE = re.compile(r"[0-9a-f]{16}")


def _all_are_up(_neighbour: str, _length: int) -> bool:
    return True


class Relay:
    """The in-flight table of one CKMS and its transitions.

    Args:
        table: labels and paths.
        choice: the memory of failed paths.
        source: draws references and shares.
        capacity: batches in flight that came from one neighbour, or from this node's AKMS, so that none of them
            keeps others out; sixteen times as many are remembered as duplicates. What would be more is refused as
            busy.
    """

    def __init__(self, table: ForwardingTable, choice: PathChoice, source: Source, *, capacity: int = 4_096) -> None:
        self.counts = RelayCounts()
        self.police = Police(table.places)
        self.combining = Combining()
        self._table = table
        self._choice = choice
        self._source = source
        self._flights = Flights(source, capacity)
        self._joint: dict[str, tuple[str, ...]] = {}
        """Of each delivery that was made of shares: the references of all of them."""

    @property
    def in_flight(self) -> int:
        """How many batches wait for their outcome."""
        return len(self._flights)

    def next_deadline(self) -> float | None:
        """When `expire` is due next, None while nothing is in flight (an early time is harmless)."""
        return self._flights.next_deadline()

    def submit(self, request: Submit, ready: Ready, now: float) -> list[Effect]:
        """Take a batch from this node's AKMS; its outcome comes as `TellOutcome`, once.

        Args:
            request: the batch and its destination.
            ready: whether a first link could take so many bytes now; 0: whether it is up.
            now: seconds.

        Raises:
            ServiceError: malformed; conflict (a batch of this name was submitted before); busy.
        """
        length = len(request.bits)
        check(request.batch, length)
        if request.remaining_ms <= 2 * HOP_MARGIN_MS:
            raise ServiceError(ErrorCode.DEADLINE, "no time is left for this batch")
        if (OWN_AKMS, request.batch) in self._flights.seen:
            raise ServiceError(ErrorCode.CONFLICT, "a batch of this name was submitted before")
        if self._flights.full(OWN_AKMS, now):
            raise ServiceError(ErrorCode.BUSY, "too many batches are in flight", retry_after_ms=100)
        deadline = deadline_of(request.remaining_ms, now)
        self._flights.seen.add((OWN_AKMS, request.batch), deadline)
        self.counts.submitted += 1
        submission = Submission(request.batch)
        paths = paths_for(request, self._table, self._choice, ready, now)
        if isinstance(paths, RelayFailure):
            return self._failed(submission, paths)
        for path in paths:
            if not self._admits("akms", (path.first.neighbour, path.first.label), path, length, now):
                for other in paths:
                    self._choice.untried(other, now)
                return self._failed(submission, RelayFailure.BUSY)
        if request.service_class == SPLIT:
            self.counts.divide(length, len(paths))
        effects: list[Effect] = []
        for piece in pieces_of(request, paths, self._source, now, deadline):
            first, until = piece.path.first, piece.deadline
            batch = InFlight(Own(submission, piece.path), first.neighbour, now, until)
            effects.append(self._send(batch, first, first.label, piece.name, piece.bits))
        return effects

    def expect(self, request: Expect, now: float) -> list[Effect]:
        """This node's AKMS says that a batch of class split is on its way here.

        Raises:
            ServiceError: malformed; busy.
        """
        check(request.batch, request.length)
        found = self.combining.expect(request.batch, request.length, now)
        if found is None:
            raise ServiceError(ErrorCode.BUSY, "too many batches are on their way here", retry_after_ms=1000)
        return self._combined(found, now)

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
        if (previous, request.reference) in self._flights.seen:
            self.counts.duplicates += 1
            return []
        origin = Upstream(previous, request.reference)
        deadline = deadline_of(request.remaining_ms, now)
        if self._flights.full(previous, now):
            return self._answer(origin, RelayFailure.BUSY, deadline)
        self._flights.seen.add((previous, request.reference), deadline)
        if not fits(request.batch, len(bits)):
            return self._answer(origin, RelayFailure.REFUSED, deadline)
        if request.remaining_ms <= 0:
            return self._answer(origin, RelayFailure.DEADLINE, deadline)
        entry = self._table.lookup(request.label, previous)
        if entry is None:
            return self._answer(origin, RelayFailure.NO_PATH, deadline)
        if not self._admits(previous, (previous, entry.label), entry, len(bits), now):
            return self._answer(origin, RelayFailure.BUSY, deadline)
        hop = onward(entry, ready)
        if hop is not None:
            if onward_ms(now, deadline) <= 0:
                return self._answer(origin, RelayFailure.DEADLINE, deadline)
            self.counts.detoured += hop is entry.detour
            return [self._send(InFlight(origin, hop.neighbour, now, deadline), hop, entry.label, request.batch, bits)]
        reference = self._flights.take(InFlight(origin, None, now, deadline))
        if entry.service_class == SPLIT:
            share = Share(reference, previous, entry.label, request.batch, deadline)
            return self._combined(self.combining.add(share, bits, now), now)
        return [DeliverBatch(reference, request.batch, bits, deadline, entry.label)]

    def refuse(self, previous: str, request: Forward, failure: RelayFailure, now: float) -> list[Effect]:
        """Answer a neighbour's batch with a failure without looking at it: this service is stopping."""
        origin = Upstream(previous, request.reference)
        return self._answer(origin, failure, deadline_of(request.remaining_ms, now))

    def acknowledge(self, neighbour: str, request: Acknowledge, now: float) -> list[Effect]:
        """Pass on what a neighbour says of batches that were sent to it; what it may not speak of is ignored."""
        effects: list[Effect] = []
        for outcome in request.outcomes:
            found = self._flights.get(outcome.reference)
            if found is None or found.next != neighbour:
                self.counts.strays += 1
                continue
            effects += self._finish(outcome.reference, outcome.failure, now)
        return effects

    def failed(self, reference: str, failure: RelayFailure, now: float) -> list[Effect]:
        """A batch could not be sent on (ignored if its outcome is known already)."""
        return [] if self._flights.get(reference) is None else self._finish(reference, failure, now)

    def unsent(self, reference: str) -> None:
        """What nobody waits for any more (`waits`) was not sent: nothing will be heard of it."""
        found = self._flights.get(reference)
        if found is not None and isinstance(found.origin, Own) and found.origin.submission.failed:
            self._flights.drop(reference)
            found.origin.submission.open.discard(reference)
            self._choice.untried(found.origin.path, found.since)

    def awaited(self) -> set[str]:
        """The neighbours whose acknowledgement something in flight waits for."""
        return self._flights.awaited()

    def concerns(self, neighbour: str) -> bool:
        """Whether anything in flight came from a neighbour, or waits for its acknowledgement."""
        return self._flights.concern(neighbour)

    def waits(self, reference: str) -> bool:
        """Whether somebody waits for the outcome of a batch."""
        found = self._flights.get(reference)
        return found is not None and not (isinstance(found.origin, Own) and found.origin.submission.failed)

    def lost(self, neighbour: str, now: float) -> list[Effect]:
        """The link to a neighbour is down: what waits for its acknowledgement has failed."""
        waiting = self._flights.to(neighbour)
        return [effect for one in waiting for effect in self.failed(one, RelayFailure.UNREACHABLE, now)]

    def finished(self, reference: str, failure: RelayFailure | None, now: float) -> list[Effect]:
        """This node's AKMS took a batch, or refused it (ignored if its deadline has passed)."""
        references = self._joint.pop(reference, (reference,))
        open_still = [one for one in references if (found := self._flights.get(one)) and found.next is None]
        self.counts.delivered += bool(open_still) and failure is None
        return [effect for one in open_still for effect in self._finish(one, failure, now)]

    def expire(self, now: float) -> list[Effect]:
        """Give up what is late, and forget duplicates of what ended long ago."""
        effects = self._combined(self.combining.expire(now), now)
        for reference in self._flights.late(now):
            effects += self._finish(reference, RelayFailure.DEADLINE, now)
        self._flights.seen.forget(now)
        return effects

    def _combined(self, found: Iterable[Whole | Given], now: float) -> list[Effect]:
        """What follows when shares were put together, or given up."""
        effects: list[Effect] = []
        for one in found:
            if isinstance(one, Given):
                failure = RelayFailure.BUSY if one.reason is Spoiled.FULL else RelayFailure.REFUSED
                effects += [effect for share in one.references for effect in self.failed(share, failure, now)]
                continue
            references = tuple(share.reference for share in one.shares)
            self._joint[references[0]] = references
            deadline, flow = min(share.deadline for share in one.shares), one.shares[0].flow
            effects.append(DeliverBatch(references[0], one.batch, one.bits, deadline, flow, len(references)))
        return effects

    def _send(self, batch: InFlight, hop: Hop, flow: str, name: str, bits: bytes) -> Effect:
        """Send to the next hop what has time left for it."""
        reference = self._flights.take(batch)
        if isinstance(batch.origin, Own):
            batch.origin.submission.open.add(reference)
        self.counts.forwarded += 1
        self.counts.bytes += len(bits)
        remaining_ms = onward_ms(batch.since, batch.deadline)
        message = Forward(label=hop.label, reference=reference, batch=name, remaining_ms=remaining_ms)
        return SendForward(hop.neighbour, message, bits, batch.deadline - HOP_MARGIN_MS / 1000, flow)

    def _finish(self, reference: str, failure: RelayFailure | None, now: float) -> list[Effect]:
        """The outcome of what is in flight is known."""
        batch = self._flights.drop(reference)
        origin = batch.origin
        if isinstance(origin, Upstream):
            return self._answer(origin, failure, batch.deadline)
        self._choice.judge(origin.path, failure, batch.since, now)
        submission = origin.submission
        submission.open.discard(reference)
        if submission.failed:
            return []
        if failure is not None:
            return self._failed(submission, failure)
        return [] if submission.open else [TellOutcome(submission.batch, None)]

    def _failed(self, submission: Submission, failure: RelayFailure) -> list[Effect]:
        """With the first of its shares that fails a batch has failed."""
        submission.failed = True
        self.counts.failures[failure] += 1
        told = TellOutcome(submission.batch, failure)
        return [told, StopSending(tuple(submission.open))] if submission.open else [told]

    def _answer(self, origin: Upstream, failure: RelayFailure | None, deadline: float) -> list[Effect]:
        if failure is not None:
            self.counts.failures[failure] += 1
        return [SendAcknowledge(origin.neighbour, RelayOutcome(origin.reference, failure), deadline)]

    def _admits(self, source: str, place: tuple[str, str], limited: Entry | Path, length: int, now: float) -> bool:
        """Hold a place of the table to what it may carry."""
        if self.police.admits(place, limited.limit, length, now):
            return True
        self.police.refused(source, limited.service_class, length)
        return False
