"""Messages that carry CN keys: between an AKMS and the CKMS of its node, and from CKMS to CKMS.

No user, SAE, UKMS or grant is named in any of them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from keyhaul.transport.messages.base import Message


class RelayFailure(StrEnum):
    """Why a batch of CN keys did not arrive."""

    NO_PATH = "no-path"
    NO_KEYS = "no-keys"
    UNREACHABLE = "unreachable"
    DEADLINE = "deadline"
    BUSY = "busy"
    REFUSED = "refused"


class Forward(Message, kw_only=True):
    """One hop of a relay; the sealed secret is the CN key bits."""

    label: str
    """16 hexadecimal digits, new at every hop: what the receiver's forwarding table knows."""
    reference: str
    """16 hexadecimal digits, chosen by the sender of this hop, to match the acknowledgement."""
    batch: str
    """32 hexadecimal digits: the two AKMSs' name for these CN bits; random, unrelated to any user. Of class split the
    name of a share, which nobody between the ends can relate to those of others."""
    remaining_ms: int


class RelayOutcome(msgspec.Struct, omit_defaults=True):
    """What became of one forwarded batch."""

    reference: str
    failure: RelayFailure | None = None


class Acknowledge(Message, kw_only=True):
    """Outcomes on their way back, as many as were waiting."""

    outcomes: list[RelayOutcome]


class Submit(Message, kw_only=True):
    """AKMS to the CKMS of its node: carry these bits to that CKMS's AKMS."""

    batch: str
    destination: str
    """Service id of the CKMS at the other access node."""
    bits: bytes
    service_class: str
    remaining_ms: int

    def __repr__(self) -> str:
        return f"Submit(batch={self.batch}, destination={self.destination}, bits=<{8 * len(self.bits)} bits>)"


class Expect(Message, kw_only=True):
    """AKMS to the CKMS of its node: bits of this name are on their way here in shares (class split)."""

    batch: str
    length: int
    """Bytes of the bits, and of each share."""


class Outcome(Message, kw_only=True):
    """CKMS to its AKMS: what became of a submitted batch, end to end."""

    batch: str
    failure: RelayFailure | None = None


class Deliver(Message, kw_only=True):
    """CKMS to its AKMS: a batch that arrived here."""

    batch: str
    bits: bytes
    shares: int = 1
    """Over how many paths without a common node it came: of class split, and no other, more than 1."""

    def __repr__(self) -> str:
        return f"Deliver(batch={self.batch}, bits=<{8 * len(self.bits)} bits>)"


class Exposure(msgspec.Struct, frozen=True, omit_defaults=True):
    """CN bits that a node in quarantine may know: all of one class from one access node to another, up to now."""

    id: str
    """32 hexadecimal digits, random: what was told before is known by it, whatever database it comes from."""
    other: str
    """Service id of the CKMS at the other access node."""
    service_class: str
    sends: bool
    """Whether the bits went from this node to the other; or came from there."""
    over: bool
    """Whether no path leads over such a node any more; until then what is sent now is exposed as well."""


MOST_EXPOSURES = 256
"""In one message to an AKMS."""


class Exposed(Message, kw_only=True):
    """CKMS to its AKMS: what is exposed, again and again; answered when it is durable that it will not be used."""

    exposures: Annotated[list[Exposure], Meta(max_length=MOST_EXPOSURES)]
