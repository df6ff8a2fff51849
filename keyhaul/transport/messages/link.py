"""Messages between the two ends of a link: establishing a session, sealing, refilling.

The protocol is described in docs/architecture.md, "A link".
"""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

import msgspec

from keyhaul.transport.messages.base import Message


class Stream(StrEnum):
    """The two pad streams of a lane: payload may never touch what is kept for control."""

    CONTROL = "control"
    PAYLOAD = "payload"


class BlockReport(msgspec.Struct, omit_defaults=True):
    """One confirmed block of KMA key material as one end records it."""

    number: int
    """Position in the order in which blocks were confirmed in this direction, from 1."""
    stream: Stream
    start: int
    """Byte offset of its first byte in the stream."""
    length: int
    """Bytes."""
    digest: bytes
    """SHA-256 of the concatenated 16-byte key IDs (not of key bits)."""


class DirectionReport(msgspec.Struct, omit_defaults=True):
    """What one end durably knows of one direction of the link."""

    control_bound: int
    """Sender: byte offset below which control pad was requested; receiver: below which it was granted."""
    payload_bound: int
    last_block: int
    """Highest block number that this end ever recorded."""
    blocks: list[BlockReport] = []
    control_floor: int = 0
    """Sender: nothing at or above this offset was ever used; after a start this is its bound. Receiver: 0."""
    payload_floor: int = 0
    control_end: int = 0
    """Greatest end of a block of that stream that this end ever recorded, burned ones included."""
    payload_end: int = 0


class Hello(Message, kw_only=True):
    """First and second message of session establishment, signed by the sender's ML-DSA link key."""

    link: str
    sender: str
    """Service id of the sender, e.g. ``ckms-8``."""
    incarnation: bytes
    """16 random bytes, new at every start of the process."""
    peer_incarnation: bytes = b""
    """In the reply: the initiator's incarnation."""
    answers: bytes = b""
    """In the reply: SHA-256 of the body that it answers."""
    lane: int = 0
    suites: list[str]
    """Protections that the sender accepts at this moment, best first; its floor is already applied."""
    epoch: int
    """Counts configuration changes of the sender's suite list."""
    outgoing: DirectionReport
    incoming: DirectionReport
    kem: bytes = b""
    """In the first message an ML-KEM-768 encapsulation key, in the reply the ciphertext."""
    suite: str = ""
    """In the reply: the chosen protection."""


class SignedHello(Message, kw_only=True):
    """A hello as exact bytes, with the ML-DSA-65 signature over them."""

    body: bytes
    signature: bytes


class Establish(Message, kw_only=True):
    """Third message: the initiator's proof that it saw this very reply; after it both ends switch."""

    link: str
    transcript: bytes
    """SHA-256 over both signed hellos' bodies."""
    signature: bytes


class Established(Message, kw_only=True):
    """The responder has switched to the new session."""

    proof: bytes = b""
    """32 bytes derived from the session's secrets: only the responder of this very session knows them."""


class Wake(Message, kw_only=True):
    """The responder's request that the initiator establish a session; it decides nothing by itself."""

    link: str
    nonce: bytes = b""
    """16 random bytes, so that a repeated one is known."""
    signature: bytes = b""
    """By the responder's ML-DSA-65 link key."""


class SealedHeader(msgspec.Struct, omit_defaults=True):
    """The authenticated head of a sealed message; travels as exact bytes."""

    v: int
    link: str
    kind: str
    """Name of the operation, as in the table of operations."""
    lane: int
    sender: bytes
    """Incarnation of the sender."""
    receiver: bytes
    """Incarnation of the receiver."""
    sequence: int
    """Unique in this direction and session; accepted once."""
    suite: str
    stream: Stream
    offset: int
    """Byte offset in the stream where this message's pad, or its AEAD key, begins."""
    answers: int = -1
    """Sequence number (in the opposite direction) of the request that this message answers."""
    request_session: bytes = b""
    """The session of that request, where it is another than this message's: an answer outlives a change of session."""
    session: bytes = b""
    """The first 16 bytes of the SHA-256 of the transcript that made the session."""
    key: int = 0
    """Control offset of the hash key, for suites that have one besides the message's own pad."""


class Sealed(Message, kw_only=True):
    """A message protected under the link's keys: `clear` is authenticated, `secret` encrypted as well."""

    header: bytes
    clear: bytes
    secret: bytes = b""
    tag: bytes


class Offer(msgspec.Struct, omit_defaults=True):
    """Keys of one future block, which the receiver looks up at its own QKD module."""

    number: int
    stream: Stream
    start: int
    key_ids: list[UUID]
    key_size: int
    """Bits of each key."""


class LinkControl(Message, kw_only=True):
    """Refill and lease in one exchange, from the sender of a direction to its receiver."""

    offer: Offer | None = None
    control_bound: int = 0
    """Requested: the sender has durably recorded that it may use control pad below this offset."""
    payload_bound: int = 0
    void_blocks: list[int] = []
    """Blocks that the sender has burned and the receiver must."""
    finished_below: int = 0
    """Payload offset below which nothing is in flight any more."""
    control_finished_below: int = 0
    """The same of the control stream."""


class LinkControlReply(Message, kw_only=True):
    """The receiver's answer: authenticated together with the bits of the block that it confirms."""

    missing: list[int] = []
    """Indices into the offer's key_ids that the receiver's module did not have; both ends burn them."""
    control_bound: int = 0
    """Granted, durably."""
    payload_bound: int = 0
