"""The maker's side of a request: from another AKMS's message to keys that every slave's UKMS holds and it has taken.

The CN bits, and the slaves' copies, are got ready side by side; while the carrier is in trouble the CN bits come first.
Then the keys are handed over (`transferring`). When the maker gives up, only the asker's word decides between settling
and voiding (`voiding`).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from sqlalchemy import Connection

from keyhaul.identity.names import ServiceName
from keyhaul.keys.grants import InvalidGrant, verify
from keyhaul.keys.states import KeyEvent, KeyState
from keyhaul.randomness import Source, identifier, key_ids
from keyhaul.runtime.interface import Runtime
from keyhaul.store.interface import Store
from keyhaul.transport.interface import Calls, Peer
from keyhaul.transport.messages.aaa import Grant
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.peer import FailureReason, KeyRequest, RequestFailed
from keyhaul.transport.operations import PEER_FAILED
from services.akms import batches, errands
from services.akms.asking import IDENTIFIER, MAXIMUM_REMAINING
from services.akms.batches import Batch, Part, encode_sites
from services.akms.carrier import Carrier, ckms_of
from services.akms.changes import Authorisation, GrantUsedUp, count, uncount
from services.akms.cn_pool import Taken
from services.akms.credits import Credits, Work
from services.akms.delivery import Delivery
from services.akms.ephemeral import BadKemKey, verify_kem_key
from services.akms.errands import TRANSIENT, Errand, ErrandKind, Errands
from services.akms.holding import Holding, sites_under
from services.akms.metrics import Metrics
from services.akms.pace import Pace
from services.akms.permission import Refused, check_request
from services.akms.rates import flow_of
from services.akms.requesting import LONGEST_RETRY_MS, REASONS
from services.akms.tasks import Tasks
from services.akms.transferring import Job, Transferring

_REMEMBERED_REQUESTS = 16_384


class Making:
    """Requests of other AKMSs."""

    def __init__(
        self,
        own: ServiceName,
        store: Store,
        peers: Mapping[str, Calls],
        aaa_key: MLDSA65PublicKey,
        signing_key: MLDSA65PrivateKey,
        authorisation: Authorisation,
        carrier: Carrier,
        holding: Holding,
        delivery: Delivery,
        errands: Errands,
        credit: Credits,
        runtime: Runtime,
        tasks: Tasks,
        metrics: Metrics,
        pace: Pace,
        lifetime: float,
        source: Source,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._own = own
        self._store = store
        self._peers = peers
        self._aaa_key = aaa_key
        self._authorisation = authorisation
        self._carrier = carrier
        self._holding = holding
        self._delivery = delivery
        self._errands = errands
        self._credits = credit
        self._runtime = runtime
        self._tasks = tasks
        self._metrics = metrics
        self._pace = pace
        self._lifetime = lifetime
        self._source = source
        self._clock = clock
        self._wall = wall
        self._transferring = Transferring(own, peers, signing_key, carrier, pace, clock, wall)
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.under_way: set[str] = set()
        """Batches whose outcome a task of this process still decides."""

    def renew(self, signing_key: MLDSA65PrivateKey) -> None:
        """Sign transfers with another key from now on."""
        self._transferring.renew(signing_key)

    async def request(self, peer: Peer, message: KeyRequest) -> Accepted:
        """peer.request: check a request of another AKMS and take it on.

        Raises:
            ServiceError: not-permitted (the grant does not cover it, or a signature is wrong), busy, malformed.
        """
        if not IDENTIFIER.fullmatch(message.request) or message.remaining_ms <= 0:
            raise ServiceError(ErrorCode.MALFORMED, "a request has an identifier and a remaining time")
        if (peer.name.id, message.request) in self._seen:
            return Accepted()
        grant, kem_key = self._checked(peer, message)
        credit = ExitStack()
        credit.enter_context(self._credits.take(peer.name.id, Work.MAKING, flow_of(grant)))
        self._seen[peer.name.id, message.request] = None
        while len(self._seen) > _REMEMBERED_REQUESTS:
            self._seen.popitem(last=False)
        job = self._job(peer, message, grant, kem_key)
        self.under_way.add(job.batch.id)
        self._tasks.start(self._serve(job, credit), "make")
        return Accepted()

    def _checked(self, peer: Peer, message: KeyRequest) -> tuple[Grant, MLKEM768PublicKey]:
        public_key = peer.certificate.public_key()
        try:
            if peer.name.id not in self._peers or message.destination != ckms_of(peer.name):
                raise Refused("not a configured peer, or keys are to go to another node than the asker's")
            if not isinstance(public_key, MLDSA65PublicKey):
                raise Refused("the asker's certificate has no ML-DSA-65 key")
            grant = verify(message.grant, self._aaa_key)
            check_request(grant, self._own, peer.name, message, self._authorisation.epoch)
            kem_key = verify_kem_key(peer.name.id, self._own.id, message.kem_key, message.kem_signature, public_key)
        except (InvalidGrant, Refused, BadKemKey) as refusal:
            self._runtime.alarm("peer-request-refused", peer=peer.name.id, why=str(refusal))
            raise ServiceError(ErrorCode.NOT_PERMITTED, "not permitted") from None
        return grant, kem_key

    def _job(self, peer: Peer, message: KeyRequest, grant: Grant, kem_key: MLKEM768PublicKey) -> Job:
        batch = Batch(
            id=identifier(self._source),
            part=Part.MAKER,
            peer=peer.name.id,
            request=message.request,
            grant=grant.id,
            master=grant.master,
            master_ukms="",
            slaves=[site.sae for site in message.slaves],
            sites=sites_under(message.slaves, self._own.id),
            service_class=grant.service_class,
            size=message.size,
            key_ids=key_ids(message.number, self._source),
            expires=self._wall() + self._lifetime,
        )
        bits = self._source(message.number * message.size // 8)
        end = self._clock() + min(message.remaining_ms, round(1000 * MAXIMUM_REMAINING)) / 1000
        return Job(peer.name.id, message, grant, kem_key, batch, bits, end, begun=self._clock())

    async def _serve(self, job: Job, credit: ExitStack) -> None:
        with credit:
            try:
                taken = await self._prepare(job)
                await self._transferring.hand_over(job, taken)
                await self._settle(job)
            except ServiceError as error:
                await self._give_up(job, error)
            except GrantUsedUp:
                await self._give_up(job, ServiceError(ErrorCode.NOT_PERMITTED))
            finally:
                self.under_way.discard(job.batch.id)

    async def _prepare(self, job: Job) -> Taken:
        """CN bits and slaves' copies, side by side where the carrier works."""
        if self._carrier.troubled(job.peer, job.grant.service_class):
            taken = await self._transferring.bits(job)
            await self._hold(job)
            return taken
        failures: list[Exception] = []
        try:
            async with asyncio.TaskGroup() as group:
                taking = group.create_task(self._transferring.bits(job))
                group.create_task(self._hold(job))
        except* (ServiceError, GrantUsedUp) as found:
            failures += [error for error in found.exceptions if isinstance(error, ServiceError | GrantUsedUp)]
        if failures:
            raise failures[0]
        return taking.result()

    async def _hold(self, job: Job) -> None:
        """Record the batch, count it under its grant, and have every slave's UKMS under this AKMS hold it."""

        def change(connection: Connection) -> None:
            count(connection, job.grant.id, job.grant.epoch, job.grant.allowance, len(job.batch.key_ids))
            batches.record(connection, replace(job.batch, exposed=self._is_exposed(job, job.begun)))

        job.recorded = True
        await self._store.write(change)
        left = max(0.0, job.end - self._clock())
        job.stores = await self._holding.hold(job.batch, job.bits, job.batch.sites, left)

    async def _settle(self, job: Job) -> None:
        """The asker has released the batch: nothing needs reconciling any more."""
        sites = encode_sites(job.batch.sites, job.stores)

        def change(connection: Connection) -> list[str]:
            present = batches.find(connection, job.batch.id)
            if present is None or present.state is not KeyState.PREPARED:
                return []  # its record has ended meanwhile, by a clock that was put forward
            # The keys may have gone out under bits that came after what was exposed.
            present = replace(present, exposed=self._is_exposed(job, job.protected))
            batches.move(connection, job.batch.id, KeyEvent.RELEASE, sites=sites, exposed=present.exposed)
            if not batches.is_forfeit(present, job.stores):
                return []
            errand = Errand(ErrandKind.VOID_AT_ASKER, job.peer, job.batch.id, expires=job.batch.expires)
            return [errands.add(connection, errand)]

        self._errands.wake(*await self._store.write(change))
        self._metrics.batches.labels(Part.MAKER, "settled").inc()
        for ukms in job.batch.sites:
            self._delivery.settle(ukms, job.batch.id)

    def _is_exposed(self, job: Job, at: float) -> bool:
        return self._carrier.exposed.since(job.peer, job.grant.service_class, at)

    async def _give_up(self, job: Job, error: ServiceError) -> None:
        """Nothing of the request stays; where a transfer may have been taken, the asker is asked first."""
        reason = REASONS.get(error.code, FailureReason.NO_KEYS)
        self._metrics.failures.labels(reason).inc()
        self._metrics.batches.labels(Part.MAKER, "given-up").inc()
        if job.transferred:
            resolve = Errand(ErrandKind.RESOLVE, job.peer, job.batch.id, expires=job.batch.expires)
            self._errands.wake(await self._store.write(lambda c: errands.add(c, resolve)))
        elif job.recorded:
            number = len(job.batch.key_ids)
            await self._holding.discard(job.batch, lambda c: uncount(c, job.grant.id, number))
        await self._tell_failed(job, reason, min(max(0, error.retry_after_ms), LONGEST_RETRY_MS))

    async def _tell_failed(self, job: Job, reason: FailureReason, retry_after_ms: int) -> None:
        message = RequestFailed(request=job.message.request, reason=reason, retry_after_ms=retry_after_ms)
        backoff = self._pace.backoff
        while (left := job.end - self._clock()) > 0:
            try:
                await self._peers[job.peer].call(PEER_FAILED, message, deadline=min(left, self._pace.call))
            except ServiceError as error:
                if error.code not in TRANSIENT:
                    return
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, self._pace.backoff_limit)
            else:
                return
