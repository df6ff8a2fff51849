"""Taking a maker's transfer: checked against the request, opened, held by slaves on this side, released.

Every refusal is before the release commits, so that nothing of a refused transfer stays.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

from keyhaul.identity.names import ServiceName
from keyhaul.runtime.interface import Runtime
from keyhaul.store.interface import Store
from keyhaul.transport.interface import Peer
from keyhaul.transport.messages.access import RequestKeys
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import Transfer
from services.akms import batches
from services.akms.allowance import AllowanceGone, HeldGrant
from services.akms.batches import Batch, BatchConflict, Part
from services.akms.carrier import Carrier
from services.akms.cn_batch import UsedBits
from services.akms.cn_store import UnknownBits
from services.akms.combination import (
    CombinationSuite,
    Context,
    NotAuthentic,
    Protected,
    context_of,
    open_protected,
    verify,
)
from services.akms.ephemeral import EphemeralKey
from services.akms.holding import Holding, sites_under
from services.akms.pace import Pace
from services.akms.releasing import Releases

MAXIMUM_LIFETIME_MS = 30 * 86_400_000
"""The longest life of a key that a UKMS takes."""

MAXIMUM_RANGES = 4_096
"""Pieces of CN batches in one transfer."""

_BATCH = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True, eq=False)
class OpenRequest:
    """A request to a maker that is not closed yet."""

    id: str
    ukms: str
    message: RequestKeys
    held: HeldGrant
    maker: str
    key: EphemeralKey
    outcome: asyncio.Future[None]
    end: float
    """Monotonic."""
    batch: str = ""
    """The batch of the transfer that is being taken."""
    taken: asyncio.Future[None] | None = field(default=None, repr=False)


class Receiving:
    """Transfers to one asker."""

    def __init__(
        self,
        own: ServiceName,
        store: Store,
        carrier: Carrier,
        holding: Holding,
        releases: Releases,
        runtime: Runtime,
        pace: Pace,
        guard: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._own = own
        self._store = store
        self._carrier = carrier
        self._holding = holding
        self._releases = releases
        self._runtime = runtime
        self._pace = pace
        self._guard = guard
        self._clock = clock
        self._wall = wall

    async def take(self, opened: OpenRequest, peer: Peer, message: Transfer) -> None:
        """Release the keys of a transfer durably and start their hand-over.

        Raises:
            ServiceError: malformed, authentication, exhausted (CN bits that are not here; the maker may transfer
                the same batch with others), conflict (void, or no longer permitted).
        """
        try:
            bits = await self._open(opened, peer, message)
            at = self._clock()
        except NotAuthentic:
            self._runtime.alarm("transfer-not-authentic", peer=peer.name.id)
            raise ServiceError(ErrorCode.NOT_PERMITTED, "the transfer is not authentic") from None
        batch = self._batch(opened, peer, message)

        def sound() -> bool:
            return not self._carrier.arrivals.exposed.since(batch.peer, batch.service_class, at)

        try:
            stores = await self._hold_beside(opened, batch, bits)
        except BatchConflict:
            raise ServiceError(ErrorCode.CONFLICT, "the batch is void or known") from None
        try:
            await self._releases.release(batch, bits, stores, sound)
        except (AllowanceGone, BatchConflict) as refusal:
            if beside(batch):
                await self._holding.discard(batch)
            raise ServiceError(ErrorCode.CONFLICT, str(refusal)) from None

    async def _open(self, opened: OpenRequest, peer: Peer, message: Transfer) -> bytes:
        context = self._checked_context(opened, peer, message)
        protected = Protected(message.cipher, message.tag)
        public_key = peer.certificate.public_key()
        if not isinstance(public_key, MLDSA65PublicKey):
            raise ServiceError(ErrorCode.AUTHENTICATION, "the maker's certificate has no ML-DSA-65 key")
        verify(context, protected, message.signature, public_key)
        wait = min(self._pace.call, max(0.0, opened.end - self._clock()))
        try:
            cn = await self._carrier.arrivals.bits(peer.name.id, opened.held.grant.service_class, message.cn, wait)
        except UnknownBits:
            raise ServiceError(ErrorCode.EXHAUSTED, "these CN bits are not here") from None
        except UsedBits:
            self._runtime.alarm("cn-bits-reused", peer=peer.name.id)
            raise ServiceError(ErrorCode.EXHAUSTED, "these CN bits are used") from None
        try:
            return open_protected(context, protected, cn, opened.key.decapsulate(message.kem_ciphertext))
        except ValueError:
            raise ServiceError(ErrorCode.MALFORMED, "the transfer's lengths do not fit") from None

    def _checked_context(self, opened: OpenRequest, peer: Peer, message: Transfer) -> Context:
        """Check everything that needs no secret, before any CN bit is spent."""
        grant, asked = opened.held.grant, opened.message
        suite = CombinationSuite.of_class(grant.service_class)
        key_bytes = asked.number * asked.size // 8
        ids = message.key_ids
        fits = (
            message.suite == suite
            and _BATCH.fullmatch(message.batch) is not None
            and (len(ids), message.size) == (asked.number, asked.size)
            and len(set(ids)) == len(ids)
            and all(key_id.version == 4 for key_id in ids)
            and len(message.cipher) == key_bytes
            and sum(part.length for part in message.cn) == suite.cn_bytes(key_bytes)
            and len(message.cn) <= MAXIMUM_RANGES
            and message.kem_key_digest == opened.key.digest
            and self._guard * 1000 < message.lifetime_ms <= MAXIMUM_LIFETIME_MS
        )
        if not fits:
            raise ServiceError(ErrorCode.MALFORMED, "the transfer does not answer its request")
        return context_of(message, peer.name.id, self._own.id)

    def _batch(self, opened: OpenRequest, peer: Peer, message: Transfer) -> Batch:
        asked, grant = opened.message, opened.held.grant
        chosen = [site for site in grant.slaves if site.sae in asked.slaves]
        return Batch(
            id=message.batch,
            part=Part.ASKER,
            peer=peer.name.id,
            request=asked.request,
            grant=grant.id,
            master=asked.master,
            master_ukms=opened.ukms,
            slaves=asked.slaves,
            sites=sites_under(chosen, self._own.id),
            service_class=grant.service_class,
            size=asked.size,
            key_ids=message.key_ids,
            expires=self._wall() + message.lifetime_ms / 1000,
        )

    async def _hold_beside(self, opened: OpenRequest, batch: Batch, bits: bytes) -> dict[str, str]:
        """Have slaves on this side hold the batch, except at the master's own UKMS, which gets it in one push.

        Returns the identities of the stores that hold it.
        """
        ukmss = beside(batch)
        if not ukmss:
            return {}
        await self._store.write(lambda connection: batches.record(connection, batch))
        try:
            return await self._holding.hold(batch, bits, ukmss, max(0.0, opened.end - self._clock()))
        except ServiceError:
            await self._holding.discard(batch)
            raise ServiceError(ErrorCode.CONFLICT, "a slave's UKMS did not take the keys") from None


def beside(batch: Batch) -> list[str]:
    """The UKMSs of slaves on the master's side, without the master's own."""
    return [ukms for ukms in batch.sites if ukms != batch.master_ukms]
