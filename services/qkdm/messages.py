"""What the two ends of a simulated pair say to each other, as MessagePack frames on their own channel.

Blocks carry key bits: the channel stands in for the quantum channel and for sifting, and is never a network.
"""

from __future__ import annotations

import msgspec

VERSION = 1
MAXIMUM_FRAME = 1 << 20
"""Bytes of one frame."""
MAXIMUM_BLOCK = 4_096
"""Keys of one block."""


class Hello(msgspec.Struct, tag="hello", array_like=True, frozen=True):
    """First on every connection, from both ends."""

    version: int
    link: str
    transmitter: bool
    instance: bytes
    """Random; names this run of this end, whose store is in memory only."""
    peer_instance: bytes
    """The run of the other end with which this one was last in step; empty if none."""
    number: int
    """Transmitter: the last block made. Receiver: the last block stored."""
    key_size: int
    """Bits."""
    capacity: int
    """Keys that this end can have ready to give out."""
    given: int
    refused: int


class Block(msgspec.Struct, tag="block", array_like=True, frozen=True):
    """Transmitter to receiver: freshly distilled keys."""

    number: int
    """Counts from 1 without gaps."""
    ids: bytes
    """16 bytes a key."""
    bits: bytes
    masters: bytes
    """One byte a key: `allotment.Master`."""
    rate: float
    """Secret bits per second now."""
    qber: float

    def __repr__(self) -> str:
        return f"Block(number={self.number}, <{len(self.masters)} keys>)"


class Acknowledgement(msgspec.Struct, tag="acknowledgement", array_like=True, frozen=True):
    """Receiver to transmitter: all blocks up to this number are stored; with it, how its own direction stands."""

    number: int
    level: int
    """Keys that the receiver has to give out, all blocks up to `number` included."""
    given: int
    refused: int


class Command(msgspec.Struct, tag="command", array_like=True, frozen=True):
    """Receiver to transmitter: somebody at the receiver changes the link."""

    reference: int
    action: str
    qber: float | None
    factor: float | None


class Condition(msgspec.Struct, tag="condition", array_like=True, frozen=True):
    """Transmitter to receiver: how the link is now, after a change or in answer to a command."""

    cut: bool
    rate: float
    qber: float
    reference: int | None = None
    error: str | None = None


Message = Hello | Block | Acknowledgement | Command | Condition

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


class MalformedFrame(ValueError):
    """A frame that is no message of this channel."""


def encode(message: Message) -> bytes:
    """Return a frame: four bytes of length, then the message."""
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "big") + body


def decode(body: bytes) -> Message:
    """Read a message from a frame's body.

    Raises:
        MalformedFrame: it is none.
    """
    try:
        return _decoder.decode(body)  # type: ignore[no-any-return]
    except msgspec.DecodeError:
        raise MalformedFrame("not a message of this channel") from None
