"""The sending end of one direction: seals messages, leases pad, and offers keys that become pad (sans-IO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from keyhaul.keys.material import KeyMaterial
from keyhaul.link.channel import BootstrapSource, Channel, QuantumSource, RequestId, bootstrap_sender
from keyhaul.link.flights import Flight, Flights
from keyhaul.link.offers import MAXIMUM_BLOCKS, PendingOffer, ProtocolViolation, next_to_fill
from keyhaul.link.pads import Block, PadShortage, SenderPads, digest
from keyhaul.link.protection.interface import Need, Realm
from keyhaul.link.reconciliation import STREAMS, Reconciliation
from keyhaul.link.record import PURGE_CHUNK, DirectionState, Record, Side
from keyhaul.transport.messages.link import DirectionReport, LinkControl, LinkControlReply, Offer, Sealed, Stream

CONTROL_KEEP = 96
"""Bytes of leased control pad that only the link's own messages may use: six of them in `otp`."""

CONTROL_TRIGGER = 192
"""Lease more control pad when less than this is leased."""


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
        self.flights = Flights()
        """Messages of this session whose fate is open."""
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
        self.flights = Flights()
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
        self.flights.end()

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
        flight = Flight(RequestId(channel.session, sequence), stream, ticket.offset, ticket.key_place)
        self.flights.begin(flight)
        return Sealed(header=header, clear=clear, secret=ciphertext, tag=tag), flight

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
        self.flights.expire(now)
        return LinkControl(
            offer=self.pending.offer if self.pending else None,
            control_bound=self._state.bounds[Stream.CONTROL],
            payload_bound=self._state.bounds[Stream.PAYLOAD],
            void_blocks=sorted(self._voids),
            finished_below=self.flights.finished_below(Stream.PAYLOAD, self.streams[Stream.PAYLOAD].position),
            control_finished_below=self.flights.finished_below(Stream.CONTROL, self.streams[Stream.CONTROL].position),
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
        """Which stream to fill next and how many bytes it lacks; None when all is full, or an offer is under way.

        Args:
            demand: bytes of each stream that messages wait for.
        """
        if self.pending is not None or sum(len(pads.blocks) for pads in self.streams.values()) >= MAXIMUM_BLOCKS:
            return None
        levels = {stream: pads.level for stream, pads in self.streams.items()}
        return next_to_fill(levels, self._sizes, demand.get(Stream.PAYLOAD, 0))

    def offer(self, stream: Stream, key_ids: Sequence[UUID], bits: Sequence[bytes]) -> None:
        """Offer keys as the next block of a stream; all are of one size.

        Raises:
            ValueError: they are not, or there are none, or an offer is under way.
        """
        if self.pending is not None:
            raise ValueError("one offer at a time")
        start = max(self._state.ends[stream], self.streams[stream].position)
        self.pending = PendingOffer.of(self._state.last_block + 1, stream, start, key_ids, bits)

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

    def _purgeable(self) -> tuple[int, ...]:
        for pads in self.streams.values():
            self._finished += pads.finished()
        drop, self._finished = self._finished[:PURGE_CHUNK], self._finished[PURGE_CHUNK:]
        return tuple(drop)
