"""One direction within one session: the header that both ends expect, the protection, and the sequence numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from keyhaul.keys.material import KeyMaterial
from keyhaul.link.pads import BOOTSTRAP_LENGTH, Block, PadSpent, ReceiverPads, SenderPads
from keyhaul.link.protection.interface import AuthenticationFailed, Protection, Realm
from keyhaul.link.window import ReplayWindow
from keyhaul.transport.messages.base import PROTOCOL_VERSION, SUPPORTED_VERSIONS
from keyhaul.transport.messages.link import Sealed, SealedHeader, Stream

ENCODER = msgspec.json.Encoder()
_HEADER = msgspec.json.Decoder(SealedHeader)

LANE = 0
"""The one lane of a direction in this release."""


class MalformedMessage(Exception):
    """A sealed message whose header cannot be read, or is not for this link, operation or lane."""


class UnknownSession(Exception):
    """A message of another session than the present one."""


@dataclass(frozen=True, slots=True)
class RequestId:
    """What an answer is bound to."""

    session: bytes
    sequence: int


@dataclass(slots=True)
class Channel:
    """What the two ends of a direction share during a session."""

    link: str
    session: bytes
    sender: bytes
    """Incarnation of the sender."""
    receiver: bytes
    """Incarnation of the receiver."""
    protection: Protection
    bootstrap: bytes = field(repr=False)
    """The bootstrap pad of this direction, until it is handed over."""
    sequence: int = 0
    """The sender's next number."""
    window: ReplayWindow = field(default_factory=ReplayWindow)

    def header(self, kind: str, stream: Stream, offset: int, key: int, answers: RequestId | None) -> tuple[int, bytes]:
        """Draw the next sequence number; return it with the exact bytes of the header."""
        sequence = self.sequence
        self.sequence = sequence + 1
        head = SealedHeader(
            v=PROTOCOL_VERSION,
            link=self.link,
            kind=kind,
            lane=LANE,
            sender=self.sender,
            receiver=self.receiver,
            sequence=sequence,
            suite=self.protection.name,
            stream=stream,
            offset=offset,
            answers=-1 if answers is None else answers.sequence,
            request_session=b"" if answers is None or answers.session == self.session else answers.session,
            session=self.session,
            key=key,
        )
        return sequence, ENCODER.encode(head)

    def check(self, head: SealedHeader, kind: str, answers: RequestId | None) -> None:
        """Refuse a header that does not belong here.

        Raises:
            UnknownSession: it is of another session.
            AuthenticationFailed: it claims this session and contradicts it.
            MalformedMessage: it names another operation or lane, or answers another request.
        """
        if head.session != self.session:
            raise UnknownSession("the message belongs to another session")
        if head.sender != self.sender or head.receiver != self.receiver or head.suite != self.protection.name:
            raise AuthenticationFailed("the header contradicts the session")
        if head.kind != kind or head.lane != LANE or not self._answers(head, answers):
            raise MalformedMessage("the header names another operation, lane or request")

    def _answers(self, head: SealedHeader, request: RequestId | None) -> bool:
        if request is None:
            return head.answers == -1 and not head.request_session
        return head.answers == request.sequence and (head.request_session or self.session) == request.session


def read_header(sealed: Sealed, link: str) -> SealedHeader:
    """Decode a header.

    Raises:
        MalformedMessage: it cannot be read, or is for another link.
    """
    try:
        head = _HEADER.decode(sealed.header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedMessage("the header cannot be read") from error
    if head.link != link or head.v not in SUPPORTED_VERSIONS:
        raise MalformedMessage("the header is of another link or version")
    return head


def bootstrap_sender(bits: bytes) -> SenderPads:
    """The sender's bootstrap pad: leased whole, never stored."""
    return SenderPads([_bootstrap_block(bits)], position=-BOOTSTRAP_LENGTH)


def bootstrap_receiver(bits: bytes) -> ReceiverPads:
    """The receiver's bootstrap pad."""
    return ReceiverPads([_bootstrap_block(bits)], floor=-BOOTSTRAP_LENGTH)


def _bootstrap_block(bits: bytes) -> Block:
    if len(bits) != BOOTSTRAP_LENGTH:
        raise ValueError(f"a bootstrap pad has {BOOTSTRAP_LENGTH} bytes")
    return Block(0, Stream.CONTROL, -BOOTSTRAP_LENGTH, b"", KeyMaterial(bits))


@dataclass(slots=True)
class QuantumSource:
    """The sender's QKD-made pads; `keep` bytes of leased control pad stay for the link's own messages."""

    streams: dict[Stream, SenderPads]
    keep: int = 0
    realm: Realm = Realm.QUANTUM

    def take(self, stream: Stream, count: int) -> tuple[int, bytes]:
        """See `PadSource`."""
        return self.streams[stream].take(count, self.keep if stream is Stream.CONTROL else 0)


@dataclass(slots=True)
class BootstrapSource:
    """The sender's bootstrap pad; there is none for payload."""

    pads: SenderPads
    realm: Realm = Realm.BOOTSTRAP

    def take(self, stream: Stream, count: int) -> tuple[int, bytes]:
        """See `PadSource`."""
        if stream is not Stream.CONTROL:
            raise ValueError("bootstrap pad never protects payload")
        return self.pads.take(count)


@dataclass(slots=True)
class Archive:
    """The receiver's pads: negative offsets are bootstrap pad, and only the link's own messages may use it."""

    streams: dict[Stream, ReceiverPads]
    bootstrap: ReceiverPads
    bootstrap_allowed: bool

    def read(self, stream: Stream, offset: int, count: int) -> bytes:
        """See `PadArchive`."""
        return self._pads(stream, offset).read(offset, count)

    def use(self, stream: Stream, offset: int, count: int) -> None:
        """See `PadArchive`."""
        self._pads(stream, offset).use(offset, count)

    def _pads(self, stream: Stream, offset: int) -> ReceiverPads:
        if offset >= 0:
            return self.streams[stream]
        if stream is not Stream.CONTROL or not self.bootstrap_allowed:
            raise PadSpent("bootstrap pad is for the link's own messages alone")
        return self.bootstrap
