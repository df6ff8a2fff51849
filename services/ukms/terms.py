"""What the AKMS says of a contract: kept for as long as it may be relied on, gone at once when revoked.

Keys leave the buffers only under terms that stand here. While the AKMS cannot be reached, terms that it gave within
the last hour still serve, after a restart too: keys at hand were released and recorded under them. A revocation
deletes them durably before it is confirmed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

import msgspec
from sqlalchemy import Connection, delete, insert, select

from keyhaul.identity.names import SaeId
from keyhaul.store.interface import Store
from keyhaul.transport.messages.access import Describe, Description
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from services.ukms.etsi014 import Refusal, slave_refused, unavailable
from services.ukms.tables import terms as table

OUTAGE = 3_600.0
"""Seconds for which terms serve while the AKMS cannot be asked."""

REFUSAL_KEPT = 1.0
"""Seconds for which a refusal is repeated without asking."""

PAUSE = 1.0
"""Seconds between attempts to renew terms that still serve."""

PATIENCE = 1.0
"""Seconds that renewing may take where older terms still serve."""

MAXIMUM = 8_192
"""Terms, and refusals, in memory."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0
"""Seconds between attempts while there are no terms at all."""

REFUSALS = frozenset({ErrorCode.NOT_PERMITTED, ErrorCode.NOT_FOUND})

TRANSIENT = frozenset(
    {
        ErrorCode.BUSY,
        ErrorCode.EXHAUSTED,
        ErrorCode.UNREACHABLE,
        ErrorCode.DEADLINE,
        ErrorCode.UNKNOWN_SESSION,
        ErrorCode.AUTHENTICATION,
        ErrorCode.REPLAYED,
        ErrorCode.INTERNAL,
    }
)
"""Failures of a call that say nothing about the next attempt."""

Ask = Callable[[Describe, float], Awaitable[Description]]
"""Asks the AKMS, within so many seconds; raises ServiceError."""

Sharing = tuple[SaeId, tuple[SaeId, ...]]
"""Master; slaves: the first one as asked for, the others sorted."""


@dataclass(slots=True)
class _Entry:
    description: Description
    obtained: float
    fresh_until: float


class Terms:
    """The terms for each master and its slaves."""

    def __init__(self, store: Store, ask: Ask, clock: Callable[[], float]) -> None:
        """Prepare; `load` comes before anything else. `clock` gives seconds of this node's clock."""
        self._store = store
        self._ask = ask
        self._clock = clock
        self._entries: dict[Sharing, _Entry] = {}
        self._refused: dict[Sharing, float] = {}
        self._locks: WeakValueDictionary[Sharing, asyncio.Lock] = WeakValueDictionary()
        self._revocations = 0

    async def load(self) -> None:
        """Read what was relied on before a restart; it serves only while the AKMS cannot be asked."""
        oldest = self._clock() - OUTAGE

        def query(connection: Connection) -> list[tuple[str, str, bytes, float]]:
            chosen = select(table.c.master, table.c.slaves, table.c.description, table.c.obtained)
            return list(connection.execute(chosen.where(table.c.obtained > oldest).limit(MAXIMUM)))

        for master, slaves, description, obtained in await self._store.read(query):
            names = tuple(SaeId(name) for name in msgspec.json.decode(slaves, type=list[str]))
            entry = _Entry(msgspec.json.decode(description, type=Description), obtained, 0.0)
            self._entries[SaeId(master), names] = entry

    async def get(self, master: SaeId, slaves: tuple[SaeId, ...], deadline: float) -> Description:
        """The terms on which a master has keys with these slaves.

        Args:
            master: the verified caller.
            slaves: the slave of the URL first.
            deadline: seconds of the clock.

        Raises:
            Refusal: 400, one answer for all that is not permitted; 503 if the AKMS cannot be asked.
        """
        sharing = (master, (slaves[0], *sorted(slaves[1:])))
        entry = self._standing(sharing)
        if entry is not None:
            return entry.description
        lock = self._locks.get(sharing)
        if lock is None:
            lock = self._locks[sharing] = asyncio.Lock()
        async with lock:
            entry = self._standing(sharing)
            if entry is not None:
                return entry.description
            while True:
                entry = await self._renew(sharing, deadline)
                if self._entries.get(sharing) is entry:
                    return entry.description

    async def revoke(self, master: SaeId, slaves: frozenset[SaeId]) -> None:
        """Forget, durably, the terms of a master with any set that has one of these slaves (none given: all)."""
        self._revocations += 1
        ended = [
            sharing
            for sharing in self._entries
            if sharing[0] == master and (not slaves or not slaves.isdisjoint(sharing[1]))
        ]
        for sharing in ended:
            del self._entries[sharing]

        def change(connection: Connection) -> None:
            for row in connection.execute(select(table.c.slaves).where(table.c.master == master)).all():
                if not slaves or not slaves.isdisjoint(msgspec.json.decode(row.slaves, type=list[str])):
                    connection.execute(delete(table).where(table.c.master == master, table.c.slaves == row.slaves))

        await self._store.write(change)

    def forget(self) -> None:
        """The store holds no terms any more."""
        self._entries.clear()

    def doubt(self, master: SaeId, slaves: frozenset[SaeId]) -> None:
        """Ask anew before relying on the terms for exactly this set again."""
        for (holder, names), entry in self._entries.items():
            if holder == master and slaves == frozenset(names):
                entry.fresh_until = 0.0

    def _standing(self, sharing: Sharing) -> _Entry | None:
        now = self._clock()
        if self._refused.get(sharing, 0.0) > now:
            raise slave_refused()
        entry = self._entries.get(sharing)
        return entry if entry is not None and now < entry.fresh_until else None

    async def _renew(self, sharing: Sharing, deadline: float) -> _Entry:
        now = self._clock()
        former = self._entries.get(sharing)
        if former is not None and now >= former.obtained + OUTAGE:
            former = None
        patience = deadline - now if former is None else min(PATIENCE, deadline - now)
        revocations = self._revocations
        try:
            description = await self._describe(sharing, now + patience, once=former is not None)
        except ServiceError as error:
            if error.code in REFUSALS:
                await self._refuse(sharing)
                raise slave_refused() from None
            if former is None or self._entries.get(sharing) is not former:
                raise self._unavailable(error) from None
            former.fresh_until = self._clock() + PAUSE
            return former
        now = self._clock()
        if revocations != self._revocations:
            return await self._renew(sharing, deadline)
        entry = _Entry(description, now, now + min(max(0, description.valid_ms), round(1000 * OUTAGE)) / 1000)
        _make_room(self._entries)
        self._entries[sharing] = entry
        await self._keep(sharing, entry)
        return entry

    async def _describe(self, sharing: Sharing, until: float, *, once: bool) -> Description:
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._ask(Describe(master=sharing[0], slaves=list(sharing[1])), until - self._clock())
            except ServiceError as error:
                if once or error.code not in TRANSIENT or self._clock() + pause >= until:
                    raise
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    @staticmethod
    def _unavailable(error: ServiceError) -> Refusal:
        return unavailable(min(-(-error.retry_after_ms // 1000), 60))

    async def _refuse(self, sharing: Sharing) -> None:
        _make_room(self._refused)
        self._refused[sharing] = self._clock() + REFUSAL_KEPT
        if self._entries.pop(sharing, None) is not None:
            await self._store.write(lambda connection: _delete(connection, sharing))

    async def _keep(self, sharing: Sharing, entry: _Entry) -> None:
        row = {
            "master": sharing[0],
            "slaves": msgspec.json.encode(sharing[1]).decode(),
            "description": msgspec.json.encode(entry.description),
            "obtained": entry.obtained,
        }

        def change(connection: Connection) -> None:
            _delete(connection, sharing)
            connection.execute(delete(table).where(table.c.obtained <= entry.obtained - OUTAGE))
            connection.execute(insert(table).values(row))

        await self._store.write(change)


def _delete(connection: Connection, sharing: Sharing) -> None:
    slaves = msgspec.json.encode(sharing[1]).decode()
    connection.execute(delete(table).where(table.c.master == sharing[0], table.c.slaves == slaves))


def _make_room(entries: dict[Sharing, _Entry] | dict[Sharing, float]) -> None:
    while len(entries) >= MAXIMUM:
        del entries[next(iter(entries))]
