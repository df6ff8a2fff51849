"""Keys whose users are all under this AKMS: no CN key, no peer; held, released and delivered as all others."""

from __future__ import annotations

import time
from collections.abc import Callable

from keyhaul.identity.names import ServiceName
from keyhaul.randomness import Source, identifier, key_ids
from keyhaul.store.interface import Store
from keyhaul.transport.messages.aaa import Grant
from keyhaul.transport.messages.access import RequestKeys
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from services.akms import batches
from services.akms.allowance import AllowanceGone
from services.akms.batches import Batch, BatchConflict, Part
from services.akms.holding import Holding, sites_under
from services.akms.receiving import beside
from services.akms.releasing import Releases


class LocalKeys:
    """Makes keys between users of one AKMS."""

    def __init__(
        self,
        own: ServiceName,
        store: Store,
        holding: Holding,
        releases: Releases,
        lifetime: float,
        source: Source,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._own = own
        self._store = store
        self._holding = holding
        self._releases = releases
        self._lifetime = lifetime
        self._source = source
        self._clock = clock
        self._wall = wall

    async def make(self, ukms: str, message: RequestKeys, grant: Grant, end: float) -> None:
        """Make, hold and release one batch; `end` is monotonic.

        Raises:
            ServiceError: a slave's UKMS did not take it, or the grant no longer permits it; nothing stays.
        """
        chosen = [site for site in grant.slaves if site.sae in message.slaves]
        batch = Batch(
            id=identifier(self._source),
            part=Part.LOCAL,
            peer="",
            request=message.request,
            grant=grant.id,
            master=message.master,
            master_ukms=ukms,
            slaves=message.slaves,
            sites=sites_under(chosen, self._own.id),
            service_class=grant.service_class,
            size=message.size,
            key_ids=key_ids(message.number, self._source),
            expires=self._wall() + self._lifetime,
        )
        bits = self._source(message.number * message.size // 8)
        others = beside(batch)
        stores: dict[str, str] = {}
        try:
            if others:
                await self._store.write(lambda connection: batches.record(connection, batch))
                stores = await self._holding.hold(batch, bits, others, max(0.0, end - self._clock()))
            await self._releases.release(batch, bits, stores)
        except ServiceError:
            if others:
                await self._holding.discard(batch)
            raise
        except (AllowanceGone, BatchConflict):
            if others:
                await self._holding.discard(batch)
            raise ServiceError(ErrorCode.NOT_PERMITTED, "no longer permitted") from None
