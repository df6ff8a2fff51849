"""The receiving end of one direction: opens messages once, grants leases, confirms offered keys (sans-IO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from keyhaul.keys.material import KeyMaterial
from keyhaul.link.channel import Archive, Channel, RequestId, UnknownSession, bootstrap_receiver, read_header
from keyhaul.link.pads import Block, ReceiverPads, digest
from keyhaul.link.reconciliation import STREAMS, Reconciliation
from keyhaul.link.record import PURGE_CHUNK, DirectionState, Record, Side
from keyhaul.transport.messages.link import (
    DirectionReport,
    LinkControl,
    LinkControlReply,
    Offer,
    Sealed,
    SealedHeader,
    Stream,
)

MAXIMUM_OFFERED_KEYS = 1024
"""Keys of one offer."""

MAXIMUM_OFFSET = 1 << 60
"""No stream gets so far."""

SLACK = 16_384
"""Bytes that a sender may offer beyond the size this end keeps: the two ends' figures need not be equal."""


class OfferRefused(Exception):
    """An offer or void that does not follow from what this end recorded, or is too large."""


class NoRoom(Exception):
    """An offer that would exceed the pad this end keeps in memory."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The answer to a `link.control`: write the record, then seal the reply with `bits` as associated data."""

    record: Record | None
    reply: LinkControlReply
    bits: bytes = field(repr=False)
    answer: Answer | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The last confirmed offer, remembered should its answer be lost."""

    offer: Offer
    missing: list[int]


class ReceiverDirection:
    """One direction at its receiver. `committed` is called after a returned `Record` was written, never before."""

    def __init__(self, state: DirectionState, blocks: Sequence[Block], *, sizes: Mapping[Stream, int]) -> None:
        self._sizes = sizes
        """Bytes of pad to keep of each stream."""
        self._state = state
        self.streams = {
            stream: ReceiverPads(
                [block for block in blocks if block.stream is stream],
                granted=state.bounds[stream],
            )
            for stream in STREAMS
        }
        self._bootstrap: ReceiverPads | None = None
        self._channel: Channel | None = None
        self._answer: Answer | None = None
        self._finished: list[int] = []

    def report(self) -> DirectionReport:
        """What this end knows of the direction."""
        return self._state.report(block for pads in self.streams.values() for block in pads.blocks)

    def reconciled(self, view: Reconciliation) -> Record:
        """The change that makes a reconciliation durable at this end."""
        return Record(Side.INCOMING, self._state.reconciled(view, view.granted), keep_only=view.kept)

    def begin(self, channel: Channel, view: Reconciliation, record: Record) -> int:
        """Enter a session, after its record was written; return how many bytes of pad were burned."""
        burned = 0
        for stream, pads in self.streams.items():
            for block in pads.blocks:
                if block.number not in view.kept:
                    burned += pads.remove(block.number)
            burned += pads.burn_below(view.floors[stream])
            pads.granted = record.state.bounds[stream]
            pads.finished()
        self._state = record.state
        self._answer = None
        self._finished.clear()
        self._channel = channel
        self._bootstrap = bootstrap_receiver(channel.bootstrap)
        channel.bootstrap = b""
        return burned

    def end(self) -> None:
        """Leave the session: nothing is opened until the next one."""
        self._channel = None
        self._bootstrap = None

    def open(
        self, sealed: Sealed, kind: str, *, own: bool = False, associated: bytes = b"", answers: RequestId | None = None
    ) -> tuple[SealedHeader, bytes]:
        """Verify a message and accept it, once; return its header and secret.

        Args:
            sealed: the message.
            kind: the operation that it must be of.
            own: it is the link's own operation, which may use bootstrap pad.
            associated: what it must be authenticated with besides.
            answers: the request whose answer it must be; None: it must be a request.

        Raises:
            UnknownSession: it is of no session, or another.
            MalformedMessage: it is not for this link, operation or lane, or cannot be read.
            Replayed: its sequence number was accepted already.
            PadSpent: its pad was used or burned, or never leased.
            AuthenticationFailed: it was not made by the sender in this form.
        """
        channel, bootstrap = self._channel, self._bootstrap
        if channel is None or bootstrap is None:
            raise UnknownSession("no session stands")
        head = read_header(sealed, channel.link)
        channel.check(head, kind, answers)
        channel.window.check(head.sequence)
        archive = Archive(self.streams, bootstrap, own)
        secret = channel.protection.open(
            archive, head, sealed.header, sealed.clear, associated, sealed.secret, sealed.tag
        )
        channel.window.accept(head.sequence)
        return head, secret

    def lookup(self, control: LinkControl) -> Sequence[UUID]:
        """Check a message's offer; return the key IDs to look up at this end's module (none for a repeated offer).

        Raises:
            OfferRefused: the offer does not follow from this end's record.
            NoRoom: this end keeps no more pad now.
        """
        offer = control.offer
        if offer is None or (self._answer is not None and self._answer.offer == offer):
            return ()
        stream = offer.stream
        if offer.number != max([self._state.last_block, *control.void_blocks]) + 1:
            raise OfferRefused("the block does not follow the last one")
        if (
            not self._state.ends[stream] <= offer.start < MAXIMUM_OFFSET
            or not 0 < len(offer.key_ids) <= MAXIMUM_OFFERED_KEYS
        ):
            raise OfferRefused("the block overlaps an earlier one, is empty, or has too many keys")
        if offer.key_size <= 0 or offer.key_size % 8 or len(set(offer.key_ids)) != len(offer.key_ids):
            raise OfferRefused("the keys have no whole bytes, or one is named twice")
        self._finish(control)
        if self.streams[stream].level + offer.key_size // 8 * len(offer.key_ids) > self._sizes[stream] + SLACK:
            raise NoRoom("there is no room for more pad of this stream")
        return offer.key_ids

    def confirm(self, control: LinkControl, found: Mapping[UUID, bytes]) -> Confirmation:
        """Decide the answer to a message, with the keys that the module had.

        Raises:
            OfferRefused: a void block's number is beyond what could have been offered.
        """
        self._finish(control)
        state = self._state
        voids = tuple(control.void_blocks)
        if any(not 0 < number <= state.last_block + len(voids) for number in voids):
            raise OfferRefused("a block is void that was never offered")
        last_block = max([state.last_block, *voids])
        ends = dict(state.ends)
        add: tuple[Block, ...] = ()
        missing: list[int] = []
        bits = b""
        offer = control.offer
        answer = self._answer if self._answer is not None and self._answer.offer == offer else None
        if answer is not None:
            missing = answer.missing
            bits = self.streams[answer.offer.stream].whole(answer.offer.number)
            if not bits:
                raise OfferRefused("a block is offered again that is in use")
        elif offer is not None:
            size = offer.key_size // 8
            here = [each for each in offer.key_ids if len(found.get(each, b"")) == size]
            missing = [index for index, each in enumerate(offer.key_ids) if len(found.get(each, b"")) != size]
            bits = b"".join(found[each] for each in here)
            if bits:
                add = (Block(offer.number, offer.stream, offer.start, digest(here), KeyMaterial(bits)),)
                ends[offer.stream] = add[0].end
                last_block = offer.number
                answer = Answer(offer, missing)
        bounds = {
            stream: max(state.bounds[stream], min(requested, ends[stream]))
            for stream, requested in (
                (Stream.CONTROL, control.control_bound),
                (Stream.PAYLOAD, control.payload_bound),
            )
        }
        after = DirectionState(bounds, ends, last_block)
        drop = (*voids, *self._purgeable())
        record = Record(Side.INCOMING, after, add, drop) if after != state or add or drop else None
        reply = LinkControlReply(
            missing=missing, control_bound=bounds[Stream.CONTROL], payload_bound=bounds[Stream.PAYLOAD]
        )
        return Confirmation(record, reply, bits, answer)

    def confirmed(self, confirmation: Confirmation) -> None:
        """Go on after the record of `confirm` was written, or where there is none; the reply may be sent now."""
        if confirmation.record is not None:
            self.committed(confirmation.record)
        self._answer = confirmation.answer

    def purge(self) -> Record | None:
        """The record that deletes the bits of blocks that are used up, some at a time; None where there are none."""
        drop = self._purgeable()
        return Record(Side.INCOMING, self._state, drop=drop) if drop else None

    def committed(self, record: Record) -> None:
        """Go on after a record of `purge` was written."""
        self._state = record.state
        for number in record.drop:
            for pads in self.streams.values():
                pads.remove(number)
        for block in record.add:
            self.streams[block.stream].add(block)
        for stream, pads in self.streams.items():
            pads.granted = record.state.bounds[stream]

    def _finish(self, control: LinkControl) -> None:
        self.streams[Stream.PAYLOAD].burn_below(min(control.finished_below, self._state.bounds[Stream.PAYLOAD]))
        self.streams[Stream.CONTROL].burn_below(min(control.control_finished_below, self._state.bounds[Stream.CONTROL]))

    def _purgeable(self) -> tuple[int, ...]:
        for pads in self.streams.values():
            self._finished += pads.finished()
        drop, self._finished = self._finished[:PURGE_CHUNK], self._finished[PURGE_CHUNK:]
        return tuple(drop)
