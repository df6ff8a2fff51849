"""How a maker hands keys over to the asker: under CN bits and a fresh encapsulation, signed.

The transfer is repeated unchanged until it is answered; bits that the asker does not have are replaced by fresh ones.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey

from keyhaul.identity.names import ServiceName
from keyhaul.transport.interface import Calls
from keyhaul.transport.messages.aaa import Grant
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import KeyRequest, Transfer
from keyhaul.transport.operations import PEER_TRANSFER
from services.akms.batches import Batch
from services.akms.carrier import Carrier
from services.akms.cn_pool import Share, Taken
from services.akms.combination import CombinationSuite, context_of, protect, sign
from services.akms.ephemeral import key_digest
from services.akms.errands import TRANSIENT
from services.akms.pace import Pace
from services.akms.rates import flow_of

_FRESH_CN_ATTEMPTS = 3


@dataclass(slots=True, eq=False)
class Job:
    """One request that is being served."""

    peer: str
    message: KeyRequest
    grant: Grant
    kem_key: MLKEM768PublicKey
    batch: Batch
    bits: bytes = field(repr=False)
    end: float
    """Monotonic."""
    recorded: bool = False
    """Whether the batch may be in the store."""
    transferred: bool = False
    """Whether a transfer may have reached the asker."""
    stores: dict[str, str] = field(default_factory=dict)
    begun: float = 0.0
    """Monotonic."""
    protected: float = math.inf
    """Monotonic: when the first CN bits were taken under which the keys went out."""


class Transferring:
    """Transfers to all askers."""

    def __init__(
        self,
        own: ServiceName,
        peers: Mapping[str, Calls],
        signing_key: MLDSA65PrivateKey,
        carrier: Carrier,
        pace: Pace,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._own = own
        self._peers = peers
        self._signing_key = signing_key
        self._carrier = carrier
        self._pace = pace
        self._clock = clock
        self._wall = wall

    def renew(self, signing_key: MLDSA65PrivateKey) -> None:
        """Sign transfers with another key from now on."""
        self._signing_key = signing_key

    async def bits(self, job: Job) -> Taken:
        """CN bits for the keys of a job, which nobody else gets.

        Raises:
            ServiceError: as `Carrier.take`.
        """
        suite = CombinationSuite.of_class(job.grant.service_class)
        left = max(0.0, job.end - self._clock())
        share = Share(flow_of(job.grant), job.grant.weight)
        count = suite.cn_bytes(len(job.bits))
        return await self._carrier.take(job.peer, job.grant.service_class, count, left, share)

    async def hand_over(self, job: Job, taken: Taken) -> None:
        """Hand the keys to the asker; returns when it has released them.

        Raises:
            ServiceError: it refused for good, or did not answer in time.
        """
        if self._carrier.exposed.since(job.peer, job.grant.service_class, taken.at):
            taken = await self.bits(job)
        message = self._message(job, taken)
        fresh = 0
        backoff = self._pace.backoff
        end = job.end + self._pace.patience
        while (left := end - self._clock()) > 0:
            job.transferred = True
            message.lifetime_ms = max(0, int((job.batch.expires - self._wall()) * 1000))
            try:
                await self._peers[job.peer].call(PEER_TRANSFER, message, deadline=min(left, self._pace.call))
            except ServiceError as error:
                if error.code is ErrorCode.EXHAUSTED and fresh < _FRESH_CN_ATTEMPTS:
                    fresh += 1
                    self._carrier.burn(job.peer, taken)
                    taken = await self.bits(job)
                    message = self._message(job, taken)
                    continue
                if error.code not in TRANSIENT or error.code in (ErrorCode.EXHAUSTED, ErrorCode.AUTHENTICATION):
                    raise
            else:
                return
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, self._pace.backoff_limit)
        raise ServiceError(ErrorCode.DEADLINE, "the asker did not answer")

    def _message(self, job: Job, taken: Taken) -> Transfer:
        """Protect the keys under these CN bits and a fresh encapsulation, and sign."""
        job.protected = min(job.protected, taken.at)
        kem_secret, ciphertext = job.kem_key.encapsulate()
        message = Transfer(
            request=job.message.request,
            batch=job.batch.id,
            suite=CombinationSuite.of_class(job.grant.service_class),
            key_ids=job.batch.key_ids,
            size=job.batch.size,
            cn=taken.ranges,
            kem_key_digest=key_digest(job.message.kem_key),
            kem_ciphertext=ciphertext,
            cipher=b"",
            tag=b"",
            signature=b"",
            lifetime_ms=0,
        )
        context = context_of(message, self._own.id, job.peer)
        protected = protect(context, job.bits, taken.bits, kem_secret)
        message.cipher, message.tag = protected.cipher, protected.tag
        message.signature = sign(context, protected, self._signing_key)
        return message
