"""The sending end of one direction: seals messages, leases pad, and offers keys that become pad (sans-IO)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from keyhaul.keys.material import KeyMaterial
from keyhaul.link.channel import BootstrapSource, Channel, QuantumSource, RequestId, bootstrap_sender
from keyhaul.link.pads import Block, PadShortage, SenderPads, digest
from keyhaul.link.protection.interface import Need, Realm
from keyhaul.link.reconciliation import STREAMS, Reconciliation
from keyhaul.link.record import DirectionState, Record, Side
from keyhaul.link.window import WINDOW_SIZE
from keyhaul.transport.messages.link import DirectionReport, LinkControl, LinkControlReply, Offer, Sealed, Stream

CONTROL_KEEP = 96
"""Bytes of leased control pad that only the link's own messages may use: six of them in `otp`."""

CONTROL_TRIGGER = 192
"""Lease more control pad when less than this is leased."""

MAXIMUM_BLOCKS = 512
"""Blocks of a direction at any time."""

PURGE_CHUNK = 100
"""Rows purged in one write."""

WORTHWHILE = 640
"""Bytes that an offer should have: it costs both directions a tag."""

ANSWER_LIFE = 15.0
"""Seconds after which an answer has arrived or never will: nothing tells its sender."""


class ProtocolViolation(Exception):
    """The other end answered what no correct end answers."""


@dataclass(slots=True)
class Flight:
    """A sealed message whose fate is open."""

    id: RequestId
    stream: Stream
    offset: int
    key_place: tuple[Stream, int] | None


@dataclass(slots=True)
class PendingOffer:
    """An offer that is not answered yet."""

    offer: Offer
    bits: list[bytes] = field(repr=False)

    def present(self, missing: Sequence[int]) -> tuple[list[UUID], bytes]:
        """IDs and bits that are left when some indices are missing.

        Raises:
            ProtocolViolation: an index is not of this offer.
        """
        absent = set(missing)
        if any(not 0 <= index < len(self.bits) for index in absent):
            raise ProtocolViolation("an unknown key is said to be missing")
        here = [index for index in range(len(self.bits)) if index not in absent]
        return [self.offer.key_ids[index] for index in here], b"".join(self.bits[index] for index in here)


class SenderDirection:
    """One direction at its sender. `committed` is called after a returned `Record` was written, never before."""

    def __init__(
        self, state: DirectionState, blocks: Sequence[Block], *, step: int, sizes: Mapping[Stream, int]
    ) -> None:
        self._step = step
        """Bytes that a lease covers ahead of use."""
        self._sizes = sizes
        """Bytes of pad to keep of each stream."""
        self._state = state
        self.streams = {
            stream: SenderPads(
                [block for block in blocks if block.stream is stream],
                position=state.bounds[stream],
                requested=state.bounds[stream],
            )
            for stream in STREAMS
        }
        self._bootstrap: SenderPads | None = None
        self._channel: Channel | None = None
        self._flights: dict[int, Flight] = {}
        self._answers: deque[tuple[float, Flight]] = deque()
        """Answers that may still be under way, and until when."""
        self._keys: dict[tuple[Stream, int], bool] = {}
        """Places of keys that outlive a message, and whether the receiver has shown that it read them."""
        self._voids: set[int] = set()
        self._finished: list[int] = []
        self.pending: PendingOffer | None = None
        """The offer under way."""

    def report(self) -> DirectionReport:
        """What this end knows of the direction."""
        floors = {stream: min(pads.position, self._state.bounds[stream]) for stream, pads in self.streams.items()}
        return self._state.report((block for pads in self.streams.values() for block in pads.blocks), floors)

    def reconciled(self, view: Reconciliation) -> Record:
        """The change that makes a reconciliation durable at this end."""
        return Record(Side.OUTGOING, self._state.reconciled(view, view.requested), keep_only=view.kept)

    def begin(self, channel: Channel, view: Reconciliation, record: Record) -> int:
        """Enter a session, after its record was written; return how many bytes of pad were burned."""
        burned = 0
        for stream, pads in self.streams.items():
            for block in pads.blocks:
                if block.number not in view.kept:
                    burned += pads.remove(block.number)
            burned += pads.burn_below(view.floors[stream])
            pads.requested = record.state.bounds[stream]
            pads.granted = view.granted[stream]
            pads.finished()
        unseen = record.state.last_block == self._state.last_block
        self._state = record.state
        if self.pending is not None:
            pending, self.pending = self.pending, None
            if unseen:
                offer = pending.offer
                self.offer(offer.stream, offer.key_ids, pending.bits)
            else:
                burned += sum(len(bits) for bits in pending.bits)
        self._flights.clear()
        self._answers.clear()
        self._keys.clear()
        self._voids.clear()
        self._finished.clear()
        self._channel = channel
        self._bootstrap = bootstrap_sender(channel.bootstrap)
        channel.bootstrap = b""
        return burned

    def end(self) -> None:
        """Leave the session: nothing can be sealed until the next one."""
        self._channel = None
        self._bootstrap = None
        self._flights.clear()
        self._answers.clear()

    def seal(
        self,
        kind: str,
        clear: bytes,
        secret: bytes,
        stream: Stream,
        now: float,
        *,
        own: bool = False,
        associated: bytes = b"",
        answers: RequestId | None = None,
    ) -> tuple[Sealed, Flight]:
        """Seal a message with pad that is used for nothing else.

        Args:
            kind: the operation's name.
            clear: authenticated.
            secret: encrypted as well.
            stream: whose pad to use.
            now: monotonic seconds, for the age of AEAD keys.
            own: the link's own message, which may use the last control pad, or bootstrap pad.
            associated: authenticated, and known to the receiver already.
            answers: the request that this answers.

        Raises:
            PadShortage: no session stands, or the pad is not leased.
        """
        channel = self._channel
        if channel is None:
            raise PadShortage("no session stands")
        protection = channel.protection
        ticket = protection.prepare(self._source(channel, stream, len(secret), now, own), stream, len(secret), now)
        sequence, header = channel.header(kind, stream, ticket.offset, ticket.key, answers)
        ciphertext, tag = protection.seal(ticket, sequence, header, clear, associated, secret)
        place = ticket.key_place
        if place is not None and place not in self._keys:
            self._keys[place] = False
        flight = self._flights[sequence] = Flight(RequestId(channel.session, sequence), stream, ticket.offset, place)
        return Sealed(header=header, clear=clear, secret=ciphertext, tag=tag), flight

    def finished(self, flight: Flight, *, accepted: bool) -> None:
        """A message is no longer in flight; `accepted` when the receiver showed that it opened it."""
        if self._flights.get(flight.id.sequence) is flight:
            del self._flights[flight.id.sequence]
            if accepted and flight.key_place in self._keys:
                self._keys[flight.key_place] = True

    def sent_answer(self, flight: Flight, now: float) -> None:
        """An answer leaves; as nobody confirms it, it counts as in flight for a while, at most a window long."""
        answers = self._answers
        answers.append((now + ANSWER_LIFE, flight))
        while answers and (answers[0][0] <= now or len(answers) > WINDOW_SIZE):
            self.finished(answers.popleft()[1], accepted=False)

    def needs(self, stream: Stream, length: int, now: float) -> Need:
        """The QKD-made pad that a message would take now."""
        return self._channel.protection.needs(Realm.QUANTUM, stream, length, now) if self._channel else Need()

    def can_seal_own(self, now: float) -> bool:
        """Whether pad is there for one message of the link itself."""
        try:
            return self._channel is not None and bool(self._source(self._channel, Stream.CONTROL, 0, now, True))
        except PadShortage:
            return False

    def lease_due(self, demand: Mapping[Stream, int]) -> bool:
        """Whether asking for a lease now would help: pad is there, and too little of it is leased."""
        for stream, pads in self.streams.items():
            wanted = demand.get(stream, 0)
            if self._target(stream, wanted) <= min(pads.requested, pads.granted):
                continue
            trigger = CONTROL_TRIGGER if stream is Stream.CONTROL else self._step // 4
            if pads.leased < trigger or (wanted and not pads.fits(wanted)):
                return True
        return False

    def exchange_due(self, demand: Mapping[Stream, int]) -> bool:
        """Whether a `link.control` has something to do now."""
        return self.pending is not None or bool(self._voids) or self.lease_due(demand)

    def lease(self, demand: Mapping[Stream, int]) -> Record | None:
        """Raise the bounds by a step, or by what waits (bytes a stream); None where they are there already."""
        bounds = {
            stream: max(self._state.bounds[stream], self._target(stream, demand.get(stream, 0))) for stream in STREAMS
        }
        if bounds == self._state.bounds:
            return None
        return Record(
            Side.OUTGOING, DirectionState(bounds, self._state.ends, self._state.last_block), drop=self._purgeable()
        )

    def message(self, now: float) -> LinkControl:
        """The next `link.control`: what is offered, requested, burned and finished."""
        while self._answers and self._answers[0][0] <= now:
            self.finished(self._answers.popleft()[1], accepted=False)
        return LinkControl(
            offer=self.pending.offer if self.pending else None,
            control_bound=self._state.bounds[Stream.CONTROL],
            payload_bound=self._state.bounds[Stream.PAYLOAD],
            void_blocks=sorted(self._voids),
            finished_below=self._finished_below(Stream.PAYLOAD),
            control_finished_below=self._finished_below(Stream.CONTROL),
        )

    def offered_bits(self, message: LinkControl, missing: Sequence[int]) -> bytes:
        """What the answer to a message must be authenticated with: the bits of the block that it confirms.

        Raises:
            ProtocolViolation: the answer names keys that were not offered.
        """
        if message.offer is None:
            return b""
        return self._offered(message.offer).present(missing)[1]

    def answered(self, message: LinkControl, reply: LinkControlReply) -> Record | None:
        """Take in a verified answer; the record adds the confirmed block.

        Raises:
            ProtocolViolation: the answer contradicts the message.
        """
        self._voids.difference_update(message.void_blocks)
        for stream, granted in ((Stream.CONTROL, reply.control_bound), (Stream.PAYLOAD, reply.payload_bound)):
            pads = self.streams[stream]
            pads.granted = max(pads.granted, min(granted, self._state.bounds[stream]))
        offer = message.offer
        if offer is None:
            return None
        key_ids, bits = self._offered(offer).present(reply.missing)
        if not bits:
            self.pending = None
            return None
        block = Block(offer.number, offer.stream, offer.start, digest(key_ids), KeyMaterial(bits))
        return Record(Side.OUTGOING, self._grown(offer, block.end), (block,), self._purgeable())

    def mismatched(self, message: LinkControl) -> Record:
        """The answer did not verify with our bits: the record burns the offered block."""
        offer = message.offer
        assert offer is not None
        return Record(
            Side.OUTGOING,
            self._grown(offer, offer.start + offer.key_size // 8 * len(offer.key_ids)),
            void=offer.number,
        )

    def purge(self) -> Record | None:
        """The record that deletes the bits of blocks that are used up, some at a time; None where there are none."""
        drop = self._purgeable()
        return Record(Side.OUTGOING, self._state, drop=drop) if drop else None

    def committed(self, record: Record) -> None:
        """Go on after a record of `lease`, `answered`, `mismatched` or `purge` was written."""
        self._state = record.state
        for stream, pads in self.streams.items():
            pads.requested = record.state.bounds[stream]
        for block in record.add:
            self.streams[block.stream].add(block)
        if record.void:
            self._voids.add(record.void)
        if record.void or record.add:
            self.pending = None

    def wanted(self, demand: Mapping[Stream, int]) -> tuple[Stream, int] | None:
        """Which stream to fill next and how many bytes it lacks; None when all is full.

        A quarter of the reserve of control, as much payload and what messages wait for, the rest of control, the
        rest of payload: so a slow link carries its first message early. What lacks little is left alone: an offer
        costs pad, too.

        Args:
            demand: bytes of each stream that messages wait for.
        """
        if self.pending is not None or sum(len(pads.blocks) for pads in self.streams.values()) >= MAXIMUM_BLOCKS:
            return None
        reserve, pool = self._sizes[Stream.CONTROL], self._sizes[Stream.PAYLOAD]
        first = reserve // 4
        waiting = min(pool, max(first, demand.get(Stream.PAYLOAD, 0)))
        for stream, trigger, size in (
            (Stream.CONTROL, first // 2, first),
            (Stream.PAYLOAD, max(first // 2, min(pool, demand.get(Stream.PAYLOAD, 0))), waiting),
            (Stream.CONTROL, reserve - min(WORTHWHILE, reserve // 4), reserve),
            (Stream.PAYLOAD, pool - min(WORTHWHILE, pool // 4), pool),
        ):
            level = self.streams[stream].level
            if level < trigger:
                return stream, size - level
        return None

    def offer(self, stream: Stream, key_ids: Sequence[UUID], bits: Sequence[bytes]) -> None:
        """Offer keys as the next block of a stream; all are of one size.

        Raises:
            ValueError: they are not, or there are none, or an offer is under way.
        """
        sizes = {len(each) for each in bits}
        if self.pending is not None or len(sizes) != 1 or 0 in sizes or len(key_ids) != len(bits):
            raise ValueError("an offer takes keys of one size, and one offer at a time")
        start = max(self._state.ends[stream], self.streams[stream].position)
        offer = Offer(self._state.last_block + 1, stream, start, list(key_ids), 8 * sizes.pop())
        self.pending = PendingOffer(offer, list(bits))

    def _source(
        self, channel: Channel, stream: Stream, length: int, now: float, own: bool
    ) -> QuantumSource | BootstrapSource:
        need = channel.protection.needs(Realm.QUANTUM, stream, length, now)
        keep = 0 if own else CONTROL_KEEP
        if (not need.control or self.streams[Stream.CONTROL].fits(need.control, keep)) and (
            not need.payload or self.streams[Stream.PAYLOAD].fits(need.payload)
        ):
            return QuantumSource(self.streams, keep)
        if own and stream is Stream.CONTROL and self._bootstrap is not None:
            need = channel.protection.needs(Realm.BOOTSTRAP, stream, length, now)
            if not need.control or self._bootstrap.fits(need.control):
                return BootstrapSource(self._bootstrap)
        raise PadShortage("the pad is not leased")

    def _target(self, stream: Stream, wanted: int) -> int:
        pads = self.streams[stream]
        count = max(self._step, wanted + (CONTROL_KEEP if stream is Stream.CONTROL else 0))
        bound = pads.bound_within(count)
        pending = self.pending
        if pending is not None and pending.offer.stream is stream and bound - pads.position < count:
            offered = sum(len(bits) for bits in pending.bits)
            bound = max(bound, pending.offer.start + min(offered, count))
        return bound

    def _grown(self, offer: Offer, end: int) -> DirectionState:
        ends = {**self._state.ends, offer.stream: max(end, self._state.ends[offer.stream])}
        return DirectionState(self._state.bounds, ends, offer.number)

    def _offered(self, offer: Offer) -> PendingOffer:
        if self.pending is None or self.pending.offer != offer:
            raise ProtocolViolation("the answer is to an offer that is no longer made")
        return self.pending

    def _finished_below(self, stream: Stream) -> int:
        """Payload and control that is in flight, and keys not known to be read, hold the receiver's burning back."""
        flown = {flight.key_place for flight in self._flights.values()}
        latest = {place[0]: place for place in self._keys if place[1] >= 0}
        self._keys = {
            place: read for place, read in self._keys.items() if place in flown or place == latest.get(place[0])
        }
        held = [flight.offset for flight in self._flights.values() if flight.stream is stream and flight.offset >= 0]
        held += [offset for (of, offset), read in self._keys.items() if of is stream and not read and offset >= 0]
        return min(held, default=self.streams[stream].position)

    def _purgeable(self) -> tuple[int, ...]:
        for pads in self.streams.values():
            self._finished += pads.finished()
        drop, self._finished = self._finished[:PURGE_CHUNK], self._finished[PURGE_CHUNK:]
        return tuple(drop)
