"""AAA's operations as the AKMSs call them, and its epoch; the database works in its own thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from prometheus_client import Counter, Gauge
from sqlalchemy import Connection

from aaa import counters
from aaa.accounting import account
from aaa.administration import COMMANDS
from aaa.authorisation import GrantPolicy, authorise
from aaa.retention import purge
from aaa.revocation import changes
from aaa.schema import EPOCH
from keyhaul.config.problems import ConfigurationError
from keyhaul.database.database import Database
from keyhaul.database.errors import DatabaseBusy, DatabaseUnavailable
from keyhaul.randomness import Source, random_bytes
from keyhaul.runtime.interface import LocalCommand, Runtime
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.messages.aaa import Authorise, Changes, ChangesReply, Recorded, SignedGrant, Usage
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.operations import AAA_AUTHORISE, AAA_CHANGES, AAA_USAGE

Result = TypeVar("Result")

DEADLINE = 10.0
"""Seconds that a transaction may take, waiting included."""

IMPORT_DEADLINE = 120.0

PURGE_EVERY = 3_600.0
"""Seconds between looks for what is old."""

PORTION_PAUSE = 0.2
"""Seconds between two portions, for others who want the database."""

LONGEST_TICK = 30.0
"""Seconds after which the time that passed is recorded."""


class AaaService:
    """The service between its routes and its database.

    Args:
        database: open.
        policy: what all grants have in common.
        key: signs grants.
        epoch: seconds per epoch.
        runtime: the process around.
        keep_days: days for which records, grants and revocations are kept.
        source: draws grants' ids.
        wall: seconds since 1970: what usage and quotas are dated by.
        clock: seconds, monotonic: what epochs are counted by.
    """

    def __init__(
        self,
        database: Database,
        policy: GrantPolicy,
        key: MLDSA65PrivateKey,
        epoch: float,
        runtime: Runtime,
        *,
        keep_days: int = 400,
        source: Source = random_bytes,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._policy = policy
        self._key = key
        self._epoch_ms = max(1, int(1000 * epoch))
        self._runtime = runtime
        self._keep_days = keep_days
        self._source = source
        self._wall = wall
        self._clock = clock
        self._counted_to = clock()
        self.epoch = 0
        registry = runtime.registry
        self._grants = Counter(
            "keyhaul_aaa_authorisations", "Requests for grants, by their outcome", ["outcome"], registry=registry
        )
        self._keys = Counter(
            "keyhaul_aaa_keys",
            "Delivered keys in usage records, and later words on them",
            ["change"],
            registry=registry,
        )
        self._refused = Counter("keyhaul_aaa_usage_refused", "Usage records and changes refused", registry=registry)
        self._purged = Counter("keyhaul_aaa_rows_deleted", "Rows deleted because of their age", registry=registry)
        self._failures = Counter("keyhaul_aaa_database_failures", "Transactions that failed", registry=registry)
        self._epoch = Gauge("keyhaul_aaa_epoch", "AAA's epoch", registry=registry)

    def serve(self, routes: Routes) -> None:
        """Register the operations, and the commands of the local socket."""
        routes.add(AAA_AUTHORISE, self._on_authorise)
        routes.add(AAA_USAGE, self._on_usage)
        routes.add(AAA_CHANGES, self._on_changes)
        for name in COMMANDS:
            self._runtime.command(name, self._answer(name))

    async def load(self) -> None:
        """Read the epoch that an earlier process left."""
        self._note_epoch(await self._run(lambda connection: counters.value(connection, EPOCH)))

    async def count_epochs(self) -> None:
        """Count time into epochs, for as long as the service runs."""
        while True:
            await asyncio.sleep(min(LONGEST_TICK, self._epoch_ms / 10_000))
            try:
                await self.pass_time()
            except ServiceError as error:
                self._runtime.alarm("epoch-not-recorded", code=error.code.value)

    async def pass_time(self) -> None:
        """Record the time since the last call; what could not be recorded is recorded by the next.

        Raises:
            ServiceError: the database failed.
        """
        now = self._clock()
        elapsed = int(1000 * (now - self._counted_to))
        epoch = await self._run(lambda connection: counters.pass_time(connection, elapsed, self._epoch_ms))
        self._counted_to += elapsed / 1000
        self._note_epoch(epoch)

    async def purge_old(self) -> None:
        """Delete what is older than is to be kept, for as long as the service runs."""
        while True:
            deleted = 0
            try:
                deleted = await self.purge_portion()
            except ServiceError as error:
                self._runtime.alarm("old-rows-not-deleted", code=error.code.value)
            await asyncio.sleep(PORTION_PAUSE if deleted else PURGE_EVERY)

    async def purge_portion(self) -> int:
        """Delete some of what is old; return how many rows.

        Raises:
            ServiceError: the database failed.
        """
        deleted = await self._run(lambda connection: purge(connection, self._keep_days, int(self._wall())))
        self._purged.inc(deleted)
        return deleted

    async def _on_authorise(self, peer: Peer, request: Authorise) -> SignedGrant:
        def work(connection: Connection) -> SignedGrant:
            now = int(self._wall())
            return authorise(connection, peer.name.id, request, self._policy, self._key, self._source, now)

        try:
            grant = await self._run(work)
        except ServiceError as error:
            self._grants.labels(error.code.value).inc()
            raise
        self._grants.labels("granted").inc()
        return grant

    async def _on_usage(self, peer: Peer, request: Usage) -> Recorded:
        akms = peer.name.id
        done = await self._run(lambda connection: account(connection, akms, request, int(self._wall())))
        self._keys.labels("delivered").inc(done.recorded)
        self._keys.labels("void").inc(done.voided)
        self._keys.labels("expired").inc(done.expired)
        for grant in done.above_allowance:
            self._runtime.alarm("usage-above-allowance", akms=akms, grant=grant)
        if done.refused:
            self._refused.inc(len(done.refused))
            for batch, fault in done.refused.items():
                self._runtime.alarm("usage-refused", akms=akms, batch=batch, fault=fault)
            raise ServiceError(ErrorCode.NOT_PERMITTED, f"refused: {' '.join(done.refused)}")
        return Recorded()

    async def _on_changes(self, peer: Peer, request: Changes) -> ChangesReply:
        return await self._run(lambda connection: changes(connection, peer.name.id, request.since))

    def _answer(self, name: str) -> LocalCommand:
        async def answer(arguments: dict[str, Any]) -> dict[str, Any]:
            work = COMMANDS[name]
            try:
                return await self._database.run(
                    lambda connection: work(connection, arguments, int(self._wall())), deadline=IMPORT_DEADLINE
                )
            except ConfigurationError as error:
                raise ValueError(str(error)) from None
            except DatabaseUnavailable as error:
                raise ValueError(f"the database cannot be used: {error}") from None

        return answer

    async def _run(self, work: Callable[[Connection], Result]) -> Result:
        try:
            return await self._database.run(work, deadline=DEADLINE)
        except DatabaseBusy as error:
            raise ServiceError(ErrorCode.BUSY, str(error), retry_after_ms=1_000) from None
        except DatabaseUnavailable as error:
            self._failures.inc()
            self._runtime.alarm("database-unavailable", reason=str(error))
            raise ServiceError(ErrorCode.UNREACHABLE, "AAA cannot use its database", retry_after_ms=1_000) from None

    def _note_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self._epoch.set(epoch)
