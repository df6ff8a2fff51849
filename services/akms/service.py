"""One AKMS put together from its parts, without sockets: what `role` runs, and what a test runs in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from keyhaul.config.services import PoolSection
from keyhaul.identity.names import ServiceName
from keyhaul.randomness import Source, random_bytes
from keyhaul.runtime.interface import Runtime
from keyhaul.store.interface import Store
from keyhaul.transport.interface import Calls, Routes
from services.akms.accounting import Accounting
from services.akms.asking import Asking
from services.akms.carrier import Carrier
from services.akms.changes import Authorisation
from services.akms.credits import Credits
from services.akms.delivery import Delivery
from services.akms.describing import Describing
from services.akms.ending import Endings
from services.akms.ephemeral import EphemeralKeys
from services.akms.errands import Errands
from services.akms.exposing import Exposing
from services.akms.grants import Grants
from services.akms.holding import Holding
from services.akms.leftovers import Leftovers
from services.akms.local import LocalKeys
from services.akms.making import Making
from services.akms.metrics import Metrics
from services.akms.pace import Pace
from services.akms.querying import Querying
from services.akms.rates import Rates
from services.akms.recalling import Recalling
from services.akms.receiving import Receiving
from services.akms.reconciling import Reconciling
from services.akms.releasing import Releases
from services.akms.requesting import Requesting
from services.akms.resolving import Resolving
from services.akms.restoring import Restoring
from services.akms.searching import Searching
from services.akms.serving import ServedLinks, Serving
from services.akms.stores import UkmsStores
from services.akms.tasks import Tasks
from services.akms.tracing import Tracing
from services.akms.voiding import Voiding


@dataclass(frozen=True, slots=True)
class Terms:
    """What the operator configures."""

    key_lifetime: float = 86_400.0
    guard: float = 600.0
    requests_per_peer: int = 256
    pool: PoolSection = field(default_factory=PoolSection)


class AccessKms:
    """One access KMS."""

    def __init__(
        self,
        own: ServiceName,
        terms: Terms,
        store: Store,
        links: ServedLinks,
        ckms: Calls,
        aaa: Calls,
        peers: Mapping[str, Calls],
        aaa_key: MLDSA65PublicKey,
        signing_key: MLDSA65PrivateKey,
        runtime: Runtime,
        *,
        pace: Pace | None = None,
        source: Source = random_bytes,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Put the parts together; nothing runs yet.

        Args:
            own: this service.
            terms: lifetimes, credits and pools.
            store: durable state, of the schema in `tables`.
            links: to its UKMSs.
            ckms: to the CKMS of this node.
            aaa: to AAA.
            peers: to other AKMSs, by service id.
            aaa_key: AAA's pinned key, by which grants are verified.
            signing_key: of this service's ML-DSA-65 certificate.
            runtime: the process around.
            pace: intervals; the defaults are for operation.
            source: of every key bit and identifier.
            clock: monotonic seconds.
            wall: seconds of this node's own wall clock, for what outlives the process.
        """
        pace = pace or Pace()
        self._pace = pace
        self._clock = clock
        self._runtime = runtime
        self._links = links
        self.tasks = tasks = Tasks(runtime)
        self._credits = credit = Credits(terms.requests_per_peer)
        metrics = Metrics(runtime.registry)
        self.errands = errands = Errands(store, runtime, tasks, metrics, pace, wall)
        self.accounting = accounting = Accounting(store, aaa, runtime, metrics, pace, wall)
        self.grants = grants = Grants(own, store, aaa, aaa_key, runtime, tasks, pace, clock, wall, source)
        self.authorisation = authorisation = Authorisation(store, aaa, grants, errands, pace)
        self.carrier = carrier = Carrier(ckms, peers, terms.pool, runtime, tasks, metrics, source, clock)
        self.exposing = exposing = Exposing(store, carrier, errands, runtime, tasks, metrics, wall)
        self._stores = stores = UkmsStores(store, pace)
        delivery = Delivery(links, tasks, pace, stores, clock)
        holding = Holding(store, delivery, errands, wall)
        releases = Releases(store, delivery, accounting, errands, runtime, tasks, metrics, terms.guard, wall)
        rates = Rates(metrics)
        self._keys = keys = EphemeralKeys(own.id, signing_key)
        local = LocalKeys(own, store, holding, releases, terms.key_lifetime, source, clock, wall)
        receiving = Receiving(own, store, carrier, holding, releases, runtime, pace, terms.guard, clock, wall)
        self.requesting = requesting = Requesting(
            ckms.peer.id, store, peers, keys, receiving, credit, tasks, source, clock
        )
        self.asking = asking = Asking(
            own,
            grants,
            local,
            requesting,
            delivery,
            credit,
            rates,
            terms.requests_per_peer,
            tasks,
            metrics,
            clock,
        )
        self.making = making = Making(
            own,
            store,
            peers,
            aaa_key,
            signing_key,
            authorisation,
            carrier,
            holding,
            delivery,
            errands,
            credit,
            runtime,
            tasks,
            metrics,
            pace,
            terms.key_lifetime,
            source,
            clock,
            wall,
        )
        searching = Searching(delivery)
        leftovers = Leftovers(store, delivery, holding, errands, accounting, tasks, pace, wall)
        lifetime = terms.key_lifetime
        tracing = Tracing(store, peers, delivery, searching, errands, tasks, metrics, pace, lifetime, clock)
        Resolving(store, peers, delivery, errands, pace)
        self._restoring = Restoring(store, peers, searching, stores, accounting, tasks, metrics, pace, wall)
        recalling = Recalling(store, delivery, errands, accounting, releases, wall)
        voiding = Voiding(
            store, peers, delivery, errands, requesting, holding, leftovers, searching, recalling, lifetime, wall
        )
        self.reconciling = Reconciling(
            store,
            stores,
            making,
            asking,
            leftovers,
            tracing,
            releases,
            delivery,
            errands,
            runtime,
            tasks,
        )
        self.endings = Endings(store, stores, delivery, releases, errands, accounting, runtime, pace, terms.guard, wall)
        self.serving = Serving(
            credit,
            carrier,
            exposing,
            making,
            asking,
            requesting,
            voiding,
            recalling,
            Querying(store, peers, requesting, searching),
            self._restoring,
            self.reconciling,
            stores,
            Describing(own, grants),
            runtime,
            tasks,
        )

    def renew(self, signing_key: MLDSA65PrivateKey) -> None:
        """Sign with the key of a renewed certificate from now on."""
        self._keys.renew(signing_key)
        self.making.renew(signing_key)

    def serve(self, routes: Routes) -> None:
        """Add the handlers for the CKMS, other AKMSs and UKMSs."""
        self.serving.add(routes, self._links)

    async def start(self) -> None:
        """Load what is durable, take up what was under way, and begin to run."""
        await self.grants.load()
        await self.authorisation.load()
        await self._stores.load()
        await self.exposing.load()
        await self.reconciling.recover()
        self._restoring.start()
        self.tasks.start(self.carrier.run(), "carrier")
        self.tasks.start(self.accounting.run(), "accounting")
        self.tasks.start(self.authorisation.run(), "changes")
        self.tasks.start(self._stores.run(), "stores")
        self.tasks.start(self._tidy(), "tidy")

    async def close(self) -> None:
        """Stop; everything acknowledged is in the store, CN bits are wiped."""
        await self.tasks.close()
        self.carrier.close()

    def returned(self, ukms: str) -> None:
        """A UKMS has a new session: what waits for it is tried at once."""
        self.reconciling.returned(ukms)

    def health(self) -> dict[str, Any]:
        """For the health page: no names of users."""
        return {
            "epoch": self.authorisation.epoch,
            "open_requests": len(self.requesting),
            "under_way": self._credits.used() | self.asking.under_way,
        }

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(self._pace.purge)
            self._keys.expire(self._clock())
            await self.endings.purge()
            await self.exposing.watch()
