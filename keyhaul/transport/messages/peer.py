"""Messages between two AKMSs: requests for keys, confirmation of CN keys, transfer of KSA keys, void and query."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

import msgspec

from keyhaul.transport.messages.base import Message


class FailureReason(StrEnum):
    """The closed list of reasons for which keys could not be made; users see only what 014 can say."""

    NOT_PERMITTED = "not-permitted"
    NO_KEYS = "no-keys"
    BUSY = "busy"
    UNREACHABLE = "unreachable"
    DEADLINE = "deadline"


class BatchState(StrEnum):
    """What an AKMS or UKMS says of a batch when asked."""

    UNKNOWN = "unknown"
    PREPARED = "prepared"
    HELD = "held"
    RELEASED = "released"
    VOID = "void"


class SlaveSite(msgspec.Struct):
    """Where one slave SAE's keys go, as AAA's directory said."""

    sae: str
    ukms: str
    akms: str


class CnRange(msgspec.Struct):
    """Bits of a confirmed CN batch: `length` bytes from byte `offset`."""

    batch: str
    offset: int
    length: int


class KeyRequest(Message, kw_only=True):
    """From the master's AKMS to the first slave's AKMS, which makes the keys."""

    request: str
    grant: bytes
    """AAA's signed grant, exact bytes (`aaa.SignedGrant` as JSON)."""
    number: int
    size: int
    """Bits of each key."""
    slaves: list[SlaveSite]
    destination: str
    """Service id of the CKMS at the asking AKMS's node."""
    kem_key: bytes
    """Ephemeral ML-KEM-768 encapsulation key of the asking AKMS."""
    kem_signature: bytes
    """ML-DSA-65 signature of the asking AKMS over the key and its context."""
    remaining_ms: int


class Announce(Message, kw_only=True):
    """The maker tells the consumer that a CN batch is on its way to it."""

    batch: str
    length: int
    """Bytes, the confirmation key included."""
    service_class: str


class Confirm(Message, kw_only=True):
    """The consumer proves which bits arrived: half of a SHA-256 over them, which their first 32 bytes blind."""

    batch: str
    check: bytes


class Confirmed(Message, kw_only=True):
    """Whether the maker sent the same bits; if not, both have burned the batch."""

    same: bool


class Transfer(Message, kw_only=True):
    """KSA keys from maker to asker: sent only when every slave's UKMS holds them durably."""

    request: str
    batch: str
    """The KSA batch: 32 hexadecimal digits."""
    suite: str
    """`otp` or `aead`."""
    key_ids: list[UUID]
    size: int
    cn: list[CnRange]
    kem_key_digest: bytes
    """SHA-256 of the encapsulation key that was used."""
    kem_ciphertext: bytes
    cipher: bytes
    """The keys, one after the other, encrypted."""
    tag: bytes
    signature: bytes
    """ML-DSA-65 signature of the maker over everything above and both AKMS ids."""
    lifetime_ms: int
    """What is left of the slave copies' lifetime."""


class Released(Message, kw_only=True):
    """The asker has durably taken responsibility for the batch, usage record included."""

    batch: str


class RequestFailed(Message, kw_only=True):
    """The maker cannot serve a request; nothing of it stays."""

    request: str
    reason: FailureReason
    retry_after_ms: int = 0


class VoidKeys(Message, kw_only=True):
    """Withdraw keys on the master's side if it has not issued them (empty `key_ids`: the whole batch)."""

    batch: str
    key_ids: list[UUID] = []
    request: str = ""
    """Between AKMSs, where the caller knows it: the asker's request that the batch answered."""


class Voided(Message, kw_only=True):
    """Which keys are now void for good, and which were issued before and so stay."""

    voided: list[UUID] = []
    issued: list[UUID] = []
    store: str = ""
    """A UKMS's answer: the identity of its store, as in `access.Held`; empty where it does not tell."""
    generation: int = 0
    """A UKMS's answer: that of its store, as in `access.Report`."""


class Query(Message, kw_only=True):
    """What do you know of these batches?"""

    batches: list[str]
    requests: list[str] = []
    """Between AKMSs, where the caller knows them: the asker's requests that the batches answered, in order."""


class QueryReply(Message, kw_only=True):
    """One state for each batch asked for, in order."""

    states: list[BatchState]


class Withdraw(Message, kw_only=True):
    """The master's side has durably given up these keys unissued: the slaves' copies can go."""

    batch: str
    key_ids: list[UUID]


class Shared(Message, kw_only=True):
    """Which batches do we two share: released, their lives not over? Their names in order, from the one after this."""

    after: str = ""


class SharedBatches(Message, kw_only=True):
    """A page of names; an empty one is the end."""

    batches: list[str]


class Records(Message, kw_only=True):
    """The caller has lost its records of these shared batches."""

    batches: list[str]


class SharedRecord(msgspec.Struct, omit_defaults=True):
    """What one AKMS has on record of a batch that it shares with the caller; no key bits."""

    batch: str
    made_here: bool
    """Whether the callee made the batch, and the caller asked for it; or the other way round."""
    grant: str
    master: str
    slaves: list[str]
    service_class: str
    size: int
    key_ids: list[UUID]
    left_ms: int
    """What is left of the slave copies' lifetime."""
    request: str = ""
    """The asker's request, where the callee made the batch."""


class RecordsReply(Message, kw_only=True):
    """The records of those that are shared."""

    records: list[SharedRecord]
