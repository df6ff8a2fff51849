"""What a protection is: it turns pad and a message into ciphertext and tag, and back."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from keyhaul.transport.messages.link import SealedHeader, Stream

TAG_LENGTH = 16
"""Bytes of the tag, of every suite."""

_LENGTHS = struct.Struct(">QQQ")


class AuthenticationFailed(Exception):
    """A message that was not made by the other end in just this form and context."""


class Realm(StrEnum):
    """Where pad comes from; keys of one realm never protect messages of the other."""

    QUANTUM = "quantum"
    BOOTSTRAP = "bootstrap"


class PadSource(Protocol):
    """The sender's pads of one realm."""

    @property
    def realm(self) -> Realm:
        """Which pads they are."""
        ...

    def take(self, stream: Stream, count: int) -> tuple[int, bytes]:
        """Hand out `count` bytes once: their offset and the bytes.

        Raises:
            PadShortage: they are not there.
        """
        ...


class PadArchive(Protocol):
    """The receiver's pads."""

    def read(self, stream: Stream, offset: int, count: int) -> bytes:
        """Copy bytes that are still unused.

        Raises:
            PadSpent: they are not.
        """
        ...

    def use(self, stream: Stream, offset: int, count: int) -> None:
        """Mark bytes as used, and wipe them.

        Raises:
            PadSpent: they were used already.
        """
        ...


@dataclass(frozen=True, slots=True)
class Rotation:
    """When an AEAD key is replaced, whichever comes first."""

    messages: int = 1_000_000
    bytes: int = 1_073_741_824
    seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class Need:
    """How many bytes of each stream a message takes."""

    control: int = 0
    payload: int = 0

    def of(self, stream: Stream) -> int:
        """The bytes of one stream."""
        return self.control if stream is Stream.CONTROL else self.payload

    @classmethod
    def in_stream(cls, stream: Stream, count: int, *, control: int = 0) -> Need:
        """`count` bytes of a stream, and `control` more of the control stream."""
        return cls(control + count, 0) if stream is Stream.CONTROL else cls(control, count)


@dataclass(slots=True)
class Ticket:
    """What was taken from the pads for one message; it serves for one `seal`."""

    offset: int
    """For the header: where the message's pad, or its AEAD key, begins."""
    key: int
    """For the header: where the hash key begins, 0 for suites without one."""
    key_place: tuple[Stream, int] | None
    """Stream and offset of the key that outlives the message: the receiver must not burn it before it has read it."""
    secret: Any = field(repr=False)


class Protection(ABC):
    """One suite, in one direction of one session, at one end. The sender's and the receiver's state are apart."""

    name: ClassVar[str]
    """The suite's name in configuration and on the wire."""
    strength: ClassVar[int]
    """Greater is stronger; floors compare it."""

    def __init__(self, rotation: Rotation) -> None:
        self.rotation = rotation

    @abstractmethod
    def needs(self, realm: Realm, stream: Stream, length: int, now: float) -> Need:
        """How much pad a message with a secret of `length` bytes would take at this moment."""

    @abstractmethod
    def prepare(self, pads: PadSource, stream: Stream, length: int, now: float) -> Ticket:
        """Take the pad for one message; what was taken is never used for another.

        Raises:
            PadShortage: less is there than `needs` told.
        """

    @abstractmethod
    def seal(
        self, ticket: Ticket, sequence: int, header: bytes, clear: bytes, associated: bytes, secret: bytes
    ) -> tuple[bytes, bytes]:
        """Return ciphertext and tag of a message whose header names the ticket's places.

        Args:
            ticket: from `prepare`.
            sequence: the message's number, unique in this direction and session.
            header: the exact bytes of the header; authenticated.
            clear: authenticated.
            associated: authenticated, and known to both ends without travelling.
            secret: authenticated and encrypted.
        """

    @abstractmethod
    def open(
        self,
        pads: PadArchive,
        head: SealedHeader,
        header: bytes,
        clear: bytes,
        associated: bytes,
        ciphertext: bytes,
        tag: bytes,
    ) -> bytes:
        """Verify a message, then mark its pad as used; return the secret.

        Raises:
            AuthenticationFailed: nothing is marked then.
            PadSpent: the header names pad that cannot be used; nothing is marked then.
        """


def frame(header: bytes, clear: bytes, associated: bytes, rest: bytes = b"") -> bytes:
    """The authenticated input: every part preceded by its length, so that no two messages give the same bytes."""
    return b"".join((_LENGTHS.pack(len(header), len(clear), len(associated)), header, clear, associated, rest))
