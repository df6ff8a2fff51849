"""The asker's grants: what AAA signed, what is left of it, and new ones before the old ones end.

Durable, so that they serve through restarts and AAA's outages. A grant's life is counted from its receipt by this
node's own clock; past it AAA is asked first, and only if it does not answer the rest of the allowance is used.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from sqlalchemy import Connection, delete, select, update

from keyhaul.identity.names import ServiceName
from keyhaul.keys.grants import InvalidGrant, encode, verify
from keyhaul.randomness import Source, identifier, random_bytes
from keyhaul.runtime.interface import Runtime
from keyhaul.store.interface import Store
from keyhaul.transport.interface import Calls
from keyhaul.transport.messages.aaa import Authorise, Revocation
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.operations import AAA_AUTHORISE
from services.akms.allowance import HeldGrant, Key, key_of, record
from services.akms.pace import Pace
from services.akms.permission import Refused, check_answer
from services.akms.tables import GRANTS
from services.akms.tasks import Tasks

NEGATIVE_SECONDS = 3.0
"""How long AAA's refusal is repeated without asking again."""

AWAY_SECONDS = 1.0
"""How long AAA is taken to be away after it did not answer."""

TRUSTED_SECONDS = 60.0
"""Younger than this a grant is not replaced because a maker refuses it: another would fare no better."""

_REMEMBERED_REFUSALS = 4096
_GRANTS_PER_KEY = 8
_AWAY = frozenset({ErrorCode.UNREACHABLE, ErrorCode.DEADLINE, ErrorCode.BUSY, ErrorCode.INTERNAL})


class Grants:
    """All grants that this AKMS asked for."""

    def __init__(
        self,
        own: ServiceName,
        store: Store,
        aaa: Calls,
        aaa_key: MLDSA65PublicKey,
        runtime: Runtime,
        tasks: Tasks,
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        source: Source = random_bytes,
    ) -> None:
        self._own = own
        self._store = store
        self._aaa = aaa
        self._aaa_key = aaa_key
        self._runtime = runtime
        self._tasks = tasks
        self._pace = pace
        self._clock = clock
        self._wall = wall
        self._source = source
        self._held: dict[Key, list[HeldGrant]] = {}
        self._asking: dict[Key, asyncio.Future[HeldGrant]] = {}
        self._unanswered: dict[Key, str] = {}
        self._refused: OrderedDict[Key, tuple[float, ErrorCode, int]] = OrderedDict()
        self.newest_epoch = 0
        """The newest epoch that any grant showed."""

    async def load(self) -> None:
        """Read back what the store has."""
        rows = await self._store.read(lambda c: c.execute(select(GRANTS).order_by(GRANTS.c.received)).all())
        for row in rows:
            try:
                grant = verify(row.signed, self._aaa_key)
            except InvalidGrant:
                self._runtime.alarm("stored-grant-invalid")
                continue
            self.newest_epoch = max(self.newest_epoch, grant.epoch)
            if not row.dropped and row.left > 0:
                key = key_of(row.ukms, row.master, msgspec.json.decode(row.slaves))
                self._held.setdefault(key, []).append(HeldGrant(grant, row.signed, row.received, row.left))

    async def obtain(self, ukms: str, master: str, slaves: Sequence[str], number: int = 0) -> HeldGrant:
        """Return a grant with at least `number` keys free, and at least one.

        The caller reserves at once (before it awaits anything) with `reserve`.

        Raises:
            ServiceError: not-permitted (AAA refuses, for whatever reason), exhausted (the quota is used up and
                nothing is left), unreachable (no grant, and AAA is away).
        """
        key = key_of(ukms, master, slaves)
        number = max(1, number)
        found = self._choose(key, number)
        if found is not None and found.lived(self._wall()) < found.grant.lifetime_s:
            if self._wants_more(key) and key not in self._asking:
                self._tasks.start(self._refresh(key), "grant-refresh")
            return found
        try:
            self._repeat_refusal(key)
            fresh = await asyncio.shield(self._ask(key))
        except ServiceError as error:
            if found is not None and not found.dropped and found.free >= number and error.code in _AWAY:
                return found
            raise
        if fresh.free >= number:
            return fresh
        found = self._choose(key, number)
        if found is None:
            self._remember_refusal(key, ErrorCode.EXHAUSTED, 5000)
            raise ServiceError(ErrorCode.EXHAUSTED, "the allowance is used up", retry_after_ms=5000)
        return found

    def reserve(self, held: HeldGrant, number: int) -> None:
        """Claim part of the allowance for a request.

        Raises:
            ServiceError: exhausted.
        """
        if held.free < number:
            raise ServiceError(ErrorCode.EXHAUSTED, "the allowance is used up", retry_after_ms=1000)
        held.reserved += number

    def free(self, held: HeldGrant, number: int, *, spent: bool) -> None:
        """Give a claim back; with `spent` the keys were released and the store's figure was reduced."""
        held.reserved -= number
        if spent:
            held.left -= number

    def distrust(self, held: HeldGrant) -> bool:
        """Offer a grant that its maker refuses no more; False where it is too young for another to help."""
        if held.lived(self._wall()) < TRUSTED_SECONDS:
            return False
        self.dropped([held.grant.id])
        return True

    def drop(self, connection: Connection, revocations: Sequence[Revocation]) -> list[str]:
        """In the store, end all grants that revocations name; returns their ids for `dropped`."""
        ids = []
        for row in connection.execute(select(GRANTS.c.id, GRANTS.c.master, GRANTS.c.slaves)):
            slaves = set(msgspec.json.decode(row.slaves, type=list[str]))
            if any(
                row.id in revocation.grants
                or (row.master == revocation.master and (not revocation.slaves or slaves & set(revocation.slaves)))
                for revocation in revocations
            ):
                ids.append(row.id)
        if ids:
            connection.execute(update(GRANTS).where(GRANTS.c.id.in_(ids)).values(dropped=True))
        return ids

    def dropped(self, ids: Sequence[str]) -> None:
        """The store no longer has these grants: nothing is released under them any more."""
        gone = set(ids)
        for key, grants in list(self._held.items()):
            for held in grants:
                held.dropped = held.dropped or held.grant.id in gone
            self._held[key] = [held for held in grants if not held.dropped]
            if not self._held[key]:
                del self._held[key]

    def tidy(self, connection: Connection) -> None:
        """Delete what can serve no more: used up or dropped, and received more than a month ago."""
        useless = (GRANTS.c.left <= 0) | GRANTS.c.dropped.is_(True)
        connection.execute(delete(GRANTS).where(useless, GRANTS.c.received < self._wall() - 30 * 86_400))

    def _choose(self, key: Key, number: int) -> HeldGrant | None:
        """The oldest live grant with enough left, else the newest with enough left."""
        enough = [held for held in self._held.get(key, []) if held.free >= number]
        now = self._wall()
        live = [held for held in enough if held.lived(now) < held.grant.lifetime_s]
        return live[0] if live else (enough[-1] if enough else None)

    def _wants_more(self, key: Key) -> bool:
        """Whether the newest grant is past half its life, or all together are below half its allowance."""
        grants = self._held[key]
        newest = grants[-1]
        if (refusal := self._refused.get(key)) is not None and refusal[0] > self._clock():
            return False
        half_lived = newest.lived(self._wall()) * 2 >= newest.grant.lifetime_s
        return half_lived or sum(held.free for held in grants) * 2 < newest.grant.allowance

    def _repeat_refusal(self, key: Key) -> None:
        refusal = self._refused.get(key)
        if refusal is not None and refusal[0] > self._clock():
            text = "not permitted" if refusal[1] is ErrorCode.NOT_PERMITTED else ""
            raise ServiceError(refusal[1], text, retry_after_ms=refusal[2])

    async def _refresh(self, key: Key) -> None:
        with suppress(ServiceError):
            await asyncio.shield(self._ask(key))

    def _ask(self, key: Key) -> asyncio.Future[HeldGrant]:
        """Ask AAA, once for all who want the same."""
        future = self._asking.get(key)
        if future is None:
            future = self._asking[key] = asyncio.get_running_loop().create_future()
            future.add_done_callback(_retrieve)
            self._tasks.start(self._authorise(key, future), "authorise")
        return future

    async def _authorise(self, key: Key, future: asyncio.Future[HeldGrant]) -> None:
        try:
            future.set_result(await self._fetch(key))
        except ServiceError as error:
            self._remember_refusal(key, error.code, error.retry_after_ms)
            future.set_exception(error)
        finally:
            del self._asking[key]
            if not future.done():
                future.cancel()

    async def _fetch(self, key: Key) -> HeldGrant:
        ukms, master, slaves = key
        name = self._unanswered.setdefault(key, identifier(self._source))
        request = Authorise(ukms=ukms, master=master, slaves=list(slaves), request=name)
        try:
            signed = await self._aaa.call(AAA_AUTHORISE, request, deadline=self._pace.authorise)
        except ServiceError as error:
            if error.code not in _AWAY or len(self._unanswered) > _REMEMBERED_REFUSALS:
                del self._unanswered[key]
            if error.code in _AWAY or error.code is ErrorCode.EXHAUSTED:
                raise
            raise ServiceError(ErrorCode.NOT_PERMITTED, "not permitted") from None
        del self._unanswered[key]
        try:
            grant = verify(signed, self._aaa_key)
            check_answer(grant, self._own, ukms, master, slaves)
        except (InvalidGrant, Refused):
            self._runtime.alarm("grant-invalid")
            raise ServiceError(ErrorCode.NOT_PERMITTED, "not permitted") from None
        known = next((held for held in self._held.get(key, []) if held.grant.id == grant.id), None)
        if known is not None:
            return known
        held = HeldGrant(grant, encode(signed), self._wall(), grant.allowance)
        gone = self._make_room(key)
        await self._store.write(lambda connection: record(connection, key, held, gone))
        self._held.setdefault(key, []).append(held)
        self.newest_epoch = max(self.newest_epoch, grant.epoch)
        self._refused.pop(key, None)
        return held

    def _make_room(self, key: Key) -> list[str]:
        """Forget grants of a key that are used up, and the oldest of too many; returns their ids."""
        grants = self._held.get(key, [])
        useful = [one for one in grants if one.reserved or one.free > 0]
        kept = [one for one in useful[: 1 - _GRANTS_PER_KEY] if one.reserved] + useful[1 - _GRANTS_PER_KEY :]
        if kept:
            self._held[key] = kept
        else:
            self._held.pop(key, None)
        return [one.grant.id for one in grants if one not in kept]

    def _remember_refusal(self, key: Key, code: ErrorCode, retry_after_ms: int) -> None:
        seconds = AWAY_SECONDS if code in _AWAY else NEGATIVE_SECONDS
        self._refused[key] = (self._clock() + seconds, code, retry_after_ms)
        self._refused.move_to_end(key)
        while len(self._refused) > _REMEMBERED_REFUSALS:
            self._refused.popitem(last=False)


def _retrieve(future: asyncio.Future[HeldGrant]) -> None:
    """A refusal that nobody waited for (a refresh in the background) is not an unhandled error."""
    if not future.cancelled():
        future.exception()
