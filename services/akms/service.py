"""One AKMS put together from its parts, without sockets: what `role` runs, and what a test runs in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from keyhaul.config.services import PoolSection
from keyhaul.identity.names import ServiceName
from keyhaul.link.interface import LinkCalls, SealedHandler
from keyhaul.randomness import Source, random_bytes
from keyhaul.runtime.interface import Runtime
from keyhaul.store.interface import Store
from keyhaul.transport.interface import Calls, Peer, Routes
from keyhaul.transport.messages.access import Report, Reported, RequestKeys
from keyhaul.transport.messages.base import Accepted
from keyhaul.transport.messages.peer import (
    Announce,
    Confirm,
    Confirmed,
    Query,
    QueryReply,
    Records,
    RecordsReply,
    RequestFailed,
    Shared,
    SharedBatches,
    Voided,
    VoidKeys,
    Withdraw,
)
from keyhaul.transport.operations import (
    ACCESS_DESCRIBE,
    ACCESS_REPORT,
    ACCESS_REQUEST,
    ACCESS_WITHDRAW,
    CARRIER_DELIVER,
    CARRIER_OUTCOME,
    PEER_ANNOUNCE,
    PEER_CONFIRM,
    PEER_FAILED,
    PEER_QUERY,
    PEER_RECORDS,
    PEER_REQUEST,
    PEER_SHARED,
    PEER_TRANSFER,
    PEER_VOID,
    PEER_WITHDRAW,
    Operation,
    Reply,
    Request,
)
from services.akms.accounting import Accounting
from services.akms.asking import Asking
from services.akms.carrier import Carrier
from services.akms.changes import Authorisation
from services.akms.credits import Credits, Work
from services.akms.delivery import Delivery
from services.akms.describing import Describing
from services.akms.ephemeral import EphemeralKeys
from services.akms.errands import Errands
from services.akms.grants import Grants
from services.akms.holding import Holding
from services.akms.leftovers import Leftovers
from services.akms.local import LocalKeys
from services.akms.making import Making
from services.akms.metrics import Metrics
from services.akms.outwards import without_secret
from services.akms.pace import Pace
from services.akms.rates import Rates
from services.akms.receiving import Receiving
from services.akms.reconciling import Reconciling
from services.akms.releasing import Releases
from services.akms.resolving import Resolving
from services.akms.restoring import Restoring
from services.akms.searching import Searching
from services.akms.stores import UkmsStores
from services.akms.tasks import Tasks
from services.akms.tracing import Tracing
from services.akms.voiding import Voiding

Answered = TypeVar("Answered")


class ServedLinks(Protocol):
    """The access links of one AKMS."""

    def to(self, service_id: str) -> LinkCalls:
        """The link to a UKMS; KeyError where there is none."""
        ...

    def all(self) -> Sequence[LinkCalls]:
        """The links to all UKMSs."""
        ...

    def serve(self, operation: Operation[Request, Reply], handler: SealedHandler[Request, Reply]) -> None:
        """Serve a sealed operation on all links."""
        ...


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
        self._stores = stores = UkmsStores(store, pace)
        delivery = Delivery(links, tasks, pace, stores, clock)
        holding = Holding(store, delivery, errands, wall)
        releases = Releases(store, delivery, accounting, errands, runtime, tasks, metrics, terms.guard, wall)
        rates = Rates(metrics)
        self._keys = keys = EphemeralKeys(own.id, signing_key)
        local = LocalKeys(own, store, holding, releases, terms.key_lifetime, source, clock, wall)
        receiving = Receiving(own, store, carrier, holding, releases, runtime, pace, terms.guard, clock, wall)
        self.asking = asking = Asking(
            own,
            ckms.peer.id,
            store,
            peers,
            grants,
            keys,
            local,
            receiving,
            delivery,
            credit,
            rates,
            terms.requests_per_peer,
            tasks,
            metrics,
            source,
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
        self._voiding = Voiding(
            store, peers, delivery, errands, accounting, asking, holding, leftovers, searching, releases, lifetime, wall
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
            accounting,
            runtime,
            tasks,
            terms.guard,
            wall,
        )
        self._describing = Describing(own, grants)

    def renew(self, signing_key: MLDSA65PrivateKey) -> None:
        """Sign with the key of a renewed certificate from now on."""
        self._keys.renew(signing_key)
        self.making.renew(signing_key)

    def serve(self, routes: Routes) -> None:
        """Add the handlers for the CKMS, other AKMSs and UKMSs."""
        routes.add(CARRIER_DELIVER, self.carrier.deliver)
        routes.add(CARRIER_OUTCOME, self.carrier.outcome)
        routes.add(PEER_REQUEST, self.making.request)
        routes.add(PEER_TRANSFER, self.asking.transfer)
        routes.add(PEER_ANNOUNCE, self._announce)
        routes.add(PEER_CONFIRM, self._confirm)
        routes.add(PEER_FAILED, self._failed)
        routes.add(PEER_VOID, self._void)
        routes.add(PEER_QUERY, self._query)
        routes.add(PEER_WITHDRAW, self._withdraw)
        routes.add(PEER_SHARED, self._shared)
        routes.add(PEER_RECORDS, self._records)
        self._links.serve(ACCESS_REQUEST, without_secret(self._request, self._runtime))
        self._links.serve(ACCESS_DESCRIBE, without_secret(self._describing.describe, self._runtime))
        self._links.serve(ACCESS_WITHDRAW, without_secret(self._withdraw_expired, self._runtime))
        self._links.serve(ACCESS_REPORT, without_secret(self._report, self._runtime))

    async def start(self) -> None:
        """Load what is durable, take up what was under way, and begin to run."""
        await self.grants.load()
        await self.authorisation.load()
        await self._stores.load()
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
            "open_requests": self.asking.open_requests,
            "under_way": self._credits.used() | self.asking.under_way,
        }

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(self._pace.purge)
            self._keys.expire(self._clock())
            await self.reconciling.purge()

    async def _announce(self, peer: Peer, message: Announce) -> Accepted:
        with self._acknowledgement(peer):
            return await self.carrier.announce(peer, message)

    async def _confirm(self, peer: Peer, message: Confirm) -> Confirmed:
        with self._acknowledgement(peer):
            return await self.carrier.confirm(peer, message)

    async def _failed(self, peer: Peer, message: RequestFailed) -> Accepted:
        with self._acknowledgement(peer):
            return await self.asking.failed(peer, message)

    async def _void(self, peer: Peer, message: VoidKeys) -> Voided:
        return await self._finish(peer.name.id, lambda: self._voiding.void(peer, message), "void")

    async def _query(self, peer: Peer, message: Query) -> QueryReply:
        with self._acknowledgement(peer):
            return await self._voiding.query(peer, message)

    async def _shared(self, peer: Peer, message: Shared) -> SharedBatches:
        with self._acknowledgement(peer):
            return await self._restoring.shared(peer, message)

    async def _records(self, peer: Peer, message: Records) -> RecordsReply:
        with self._acknowledgement(peer):
            return await self._restoring.records(peer, message)

    async def _withdraw(self, peer: Peer, message: Withdraw) -> Accepted:
        return await self._finish(peer.name.id, lambda: self._voiding.withdraw(peer, message), "withdraw")

    async def _withdraw_expired(self, ukms: ServiceName, message: Withdraw) -> Accepted:
        return await self._finish(ukms.id, lambda: self._voiding.withdraw_expired(ukms, message), "withdraw")

    async def _request(self, ukms: ServiceName, message: RequestKeys) -> Accepted:
        self._stores.told(ukms.id, message.generation)
        return await self.asking.request(ukms, message)

    async def _report(self, ukms: ServiceName, message: Report) -> Reported:
        return await self._finish(ukms.id, lambda: self.reconciling.report(ukms, message), "report")

    async def _finish(self, caller: str, work: Callable[[], Awaitable[Answered]], name: str) -> Answered:
        """Do, under a credit of the caller, what must not stop half-way because the caller has given up."""

        async def credited() -> Answered:
            with self._credits.take(caller, Work.ACKNOWLEDGEMENT):
                return await work()

        return await self.tasks.complete(credited(), name)

    def _acknowledgement(self, peer: Peer) -> AbstractContextManager[None]:
        return self._credits.take(peer.name.id, Work.ACKNOWLEDGEMENT)
