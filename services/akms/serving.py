"""What others may call of an AKMS: each operation with its handler, and under which of the caller's credits it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from keyhaul.identity.names import ServiceName
from keyhaul.link.interface import LinkCalls, SealedHandler
from keyhaul.runtime.interface import Runtime
from keyhaul.transport.interface import Peer, Routes
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
    CARRIER_EXPOSED,
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
from services.akms.asking import Asking
from services.akms.carrier import Carrier
from services.akms.credits import Credits, Work
from services.akms.describing import Describing
from services.akms.exposing import Exposing
from services.akms.making import Making
from services.akms.outwards import without_secret
from services.akms.querying import Querying
from services.akms.recalling import Recalling
from services.akms.reconciling import Reconciling
from services.akms.requesting import Requesting
from services.akms.restoring import Restoring
from services.akms.stores import UkmsStores
from services.akms.tasks import Tasks
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


class Serving:
    """The handlers of one AKMS for its CKMS, other AKMSs and UKMSs."""

    def __init__(
        self,
        credit: Credits,
        carrier: Carrier,
        exposing: Exposing,
        making: Making,
        asking: Asking,
        requesting: Requesting,
        voiding: Voiding,
        recalling: Recalling,
        querying: Querying,
        restoring: Restoring,
        reconciling: Reconciling,
        stores: UkmsStores,
        describing: Describing,
        runtime: Runtime,
        tasks: Tasks,
    ) -> None:
        self._credits = credit
        self._carrier = carrier
        self._exposing = exposing
        self._making = making
        self._asking = asking
        self._requesting = requesting
        self._voiding = voiding
        self._recalling = recalling
        self._querying = querying
        self._restoring = restoring
        self._reconciling = reconciling
        self._stores = stores
        self._describing = describing
        self._runtime = runtime
        self._tasks = tasks

    def add(self, routes: Routes, links: ServedLinks) -> None:
        """Add all handlers."""
        routes.add(CARRIER_DELIVER, self._carrier.arrivals.deliver)
        routes.add(CARRIER_OUTCOME, self._carrier.outcome)
        routes.add(CARRIER_EXPOSED, self._exposing.exposed)
        routes.add(PEER_REQUEST, self._making.request)
        routes.add(PEER_TRANSFER, self._requesting.transfer)
        routes.add(PEER_ANNOUNCE, self._announce)
        routes.add(PEER_CONFIRM, self._confirm)
        routes.add(PEER_FAILED, self._failed)
        routes.add(PEER_VOID, self._void)
        routes.add(PEER_QUERY, self._query)
        routes.add(PEER_WITHDRAW, self._withdraw)
        routes.add(PEER_SHARED, self._shared)
        routes.add(PEER_RECORDS, self._records)
        links.serve(ACCESS_REQUEST, without_secret(self._request, self._runtime))
        links.serve(ACCESS_DESCRIBE, without_secret(self._describing.describe, self._runtime))
        links.serve(ACCESS_WITHDRAW, without_secret(self._withdraw_expired, self._runtime))
        links.serve(ACCESS_REPORT, without_secret(self._report, self._runtime))

    async def _announce(self, peer: Peer, message: Announce) -> Accepted:
        with self._acknowledgement(peer):
            return await self._carrier.arrivals.announce(peer, message)

    async def _confirm(self, peer: Peer, message: Confirm) -> Confirmed:
        with self._acknowledgement(peer):
            return await self._carrier.confirm(peer, message)

    async def _failed(self, peer: Peer, message: RequestFailed) -> Accepted:
        with self._acknowledgement(peer):
            return await self._requesting.failed(peer, message)

    async def _void(self, peer: Peer, message: VoidKeys) -> Voided:
        return await self._finish(peer.name.id, lambda: self._voiding.void(peer, message), "void")

    async def _query(self, peer: Peer, message: Query) -> QueryReply:
        with self._acknowledgement(peer):
            return await self._querying.query(peer, message)

    async def _shared(self, peer: Peer, message: Shared) -> SharedBatches:
        with self._acknowledgement(peer):
            return await self._restoring.shared(peer, message)

    async def _records(self, peer: Peer, message: Records) -> RecordsReply:
        with self._acknowledgement(peer):
            return await self._restoring.records(peer, message)

    async def _withdraw(self, peer: Peer, message: Withdraw) -> Accepted:
        return await self._finish(peer.name.id, lambda: self._voiding.withdraw(peer, message), "withdraw")

    async def _withdraw_expired(self, ukms: ServiceName, message: Withdraw) -> Accepted:
        return await self._finish(ukms.id, lambda: self._recalling.expired(ukms, message), "withdraw")

    async def _request(self, ukms: ServiceName, message: RequestKeys) -> Accepted:
        self._stores.told(ukms.id, message.generation)
        return await self._asking.request(ukms, message)

    async def _report(self, ukms: ServiceName, message: Report) -> Reported:
        return await self._finish(ukms.id, lambda: self._reconciling.report(ukms, message), "report")

    async def _finish(self, caller: str, work: Callable[[], Awaitable[Answered]], name: str) -> Answered:
        """Do, under a credit of the caller, what must not stop half-way because the caller has given up."""

        async def credited() -> Answered:
            with self._credits.take(caller, Work.ACKNOWLEDGEMENT):
                return await work()

        return await self._tasks.complete(credited(), name)

    def _acknowledgement(self, peer: Peer) -> AbstractContextManager[None]:
        return self._credits.take(peer.name.id, Work.ACKNOWLEDGEMENT)
