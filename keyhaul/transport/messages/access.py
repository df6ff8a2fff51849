"""Messages between a UKMS and its AKMS; each travels sealed under the access link's keys, in either direction."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from keyhaul.transport.messages.base import Message
from keyhaul.transport.messages.peer import BatchState, FailureReason


class Purpose(StrEnum):
    """Whether a user waits for the keys; prefetch yields to demand."""

    DEMAND = "demand"
    PREFETCH = "prefetch"


class RequestKeys(Message, kw_only=True):
    """UKMS to AKMS: keys for this master and these slaves. The caller's identity was verified by the UKMS."""

    request: str
    master: str
    slaves: list[str]
    number: int
    size: int
    """Bits of each key."""
    purpose: Purpose
    remaining_ms: int
    generation: int = 0
    """Of the UKMS's store, as in `Report`."""


class Describe(Message, kw_only=True):
    """UKMS to AKMS: may this master have keys with these slaves, and on what terms?"""

    master: str
    slaves: list[str]


class Description(Message, kw_only=True):
    """The terms of a contract as far as the user may know them."""

    target_kme: str
    """KME ID of the first slave's UKMS."""
    service_class: str
    default_size: int
    minimum_size: int
    maximum_size: int
    """Bits."""
    maximum_keys_per_request: int
    maximum_additional_slaves: int
    maximum_stored_keys: int
    loopback: bool = False
    valid_ms: int = 60_000
    """How long the UKMS may rely on this without asking again."""


class Push(Message, kw_only=True):
    """AKMS to UKMS: keys of one batch; the sealed secret is the keys one after the other."""

    batch: str
    request: str = ""
    """The request that this answers; empty at slaves."""
    master: str
    slaves: list[str]
    """All slaves of the batch."""
    held_for: list[str] = []
    """The slaves at this UKMS whose copies are to be held."""
    for_master: bool = False
    """Whether the master is at this UKMS and the keys are released to it."""
    key_ids: list[UUID]
    size: int
    service_class: str
    lifetime_ms: int
    """What is left of the life of the copies that come with this push."""
    slave_lifetime_ms: int = 0
    """The same of the copies in `held_for`, where the master's in this push end earlier; 0: no difference."""


class Held(Message, kw_only=True):
    """The UKMS has the batch durably."""

    batch: str
    store: str
    """32 hexadecimal digits: the identity of the UKMS's store; a new one means that what was held is lost."""
    generation: int = 0
    """Of the UKMS's store, as in `Report`."""


class DeliveryFailed(Message, kw_only=True):
    """AKMS to UKMS: a request that will not be served."""

    request: str
    reason: FailureReason
    retry_after_ms: int = 0
    keys_per_second: float = 0.0
    """The contract's rate, where the request was beyond it: as many come from then on; 0: it was not."""


class Settle(Message, kw_only=True):
    """AKMS to UKMS: these batches are released or void everywhere; they need no reconciling any more."""

    batches: list[str]


class Revoke(Message, kw_only=True):
    """AKMS to UKMS: stop issuing keys to this master for any set that has one of these slaves (empty: any)."""

    master: str
    slaves: list[str] = []


class Revoked(Message, kw_only=True):
    """The UKMS has durably stopped."""


class Report(Message, kw_only=True):
    """UKMS to AKMS: the identity of its store, how far that is, and the batches it holds unsettled.

    It goes out after every new session, and while keys are handed out of which no other message tells.
    """

    store: str
    unsettled: list[str]
    generation: int = 0
    """Of the store: greater after every durable change and every start; 0: it does not tell."""
    inquiry: bool = False
    """Only asks what the AKMS knows of the store, before this UKMS hands anything out: nothing is recorded."""


class Reported(Message, kw_only=True):
    """What the AKMS knew of this UKMS's store before the report."""

    store: str = ""
    """Its identity; empty where the AKMS knows none, or does not tell."""
    generation: int = 0
    """The greatest that the UKMS told of this store."""


class States(Message, kw_only=True):
    """The UKMS's answer to a query, one state a batch."""

    states: list[BatchState]
