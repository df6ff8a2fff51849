"""Messages between an AKMS and the AAA service: grants, usage records, changes of authorisation."""

from __future__ import annotations

from uuid import UUID

import msgspec

from keyhaul.transport.messages.base import Message
from keyhaul.transport.messages.peer import SlaveSite


class Authorise(Message, kw_only=True):
    """May this master at this UKMS have keys with these slaves?"""

    ukms: str
    """Service id of the UKMS that verified the master."""
    master: str
    slaves: list[str]
    request: str = ""
    """32 hexadecimal digits, the same when an AKMS asks again because no answer came: what was promised in an
    answer that it never got is taken back."""


class Grant(msgspec.Struct, omit_defaults=True):
    """What AAA promises, signed; every AKMS verifies it by itself."""

    v: int
    id: str
    """32 hexadecimal digits."""
    domain: str
    master: str
    master_ukms: str
    master_akms: str
    slaves: list[SlaveSite]
    service_class: str
    """gold, silver or bronze."""
    loopback: bool
    sizes: list[int]
    """Allowed key sizes in bits; empty: any multiple of 8 between minimum and maximum."""
    default_size: int
    minimum_size: int
    maximum_size: int
    maximum_keys_per_request: int
    allowance: int
    """Keys that may be delivered under this grant."""
    lifetime_s: int
    """Counted from receipt by the asking AKMS's own clock; while AAA is unreachable the allowance alone limits."""
    epoch: int
    """AAA's counter: an AKMS that knows a newer epoch refuses grants that are too many epochs behind."""
    target_kme: str
    contract: str = ""
    """Whose rate and share this counts to; empty: the master's own."""
    rate: float = 0.0
    """Keys a second that the asking AKMS lets the contract have; 0: no limit."""
    burst: int = 0
    """Keys at once."""
    weight: int = 1
    """The contract's share beside others where they queue for the same."""


class SignedGrant(Message, kw_only=True):
    """A grant's exact bytes and AAA's ML-DSA-65 signature over them."""

    grant: bytes
    signature: bytes


class UsageRecord(msgspec.Struct, omit_defaults=True):
    """One released batch; each delivered key stands in exactly one."""

    batch: str
    grant: str
    key_ids: list[UUID]
    size: int
    age_ms: int
    """How long ago, by the AKMS's clock, the batch was released."""


class UsageChange(msgspec.Struct, omit_defaults=True):
    """A later word on keys of a recorded batch."""

    batch: str
    change: str
    """`void` reverses the count of these keys; `expired` says that they were never fetched."""
    key_ids: list[UUID]
    ukms: str = ""
    """Service id of the UKMS by whose word it is, verified; empty from an AKMS of the release before."""


class Usage(Message, kw_only=True):
    """Records and changes; both are idempotent by batch and key."""

    records: list[UsageRecord] = []
    changes: list[UsageChange] = []


class Recorded(Message, kw_only=True):
    """Everything in the message is durably recorded."""


class Changes(Message, kw_only=True):
    """What changed since that serial?"""

    since: int


class Revocation(msgspec.Struct, omit_defaults=True):
    """A right that ended."""

    serial: int
    master: str
    slaves: list[str] = []
    """Empty: all of the master's rights."""
    grants: list[str] = []


class ChangesReply(Message, kw_only=True):
    """Revocations after the serial asked for, and AAA's present epoch."""

    serial: int
    epoch: int
    revocations: list[Revocation] = []
