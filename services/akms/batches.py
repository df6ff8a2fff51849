"""Durable records of KSA batches: who made them for whom, who holds them, which state they are in.

Functions over a connection, so that a caller puts several into one transaction.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from keyhaul.keys.identifiers import pack, unpack
from keyhaul.keys.states import KeyEvent, KeyState, after
from keyhaul.transport.messages.peer import BatchState
from services.akms.tables import BATCHES

PURGE_CHUNK = 100
"""Rows that one transaction purges at most."""

NAME = re.compile(r"[0-9a-f]{32}")
"""What names a batch."""


class Part(StrEnum):
    """What this AKMS is in the making of a batch."""

    MAKER = "maker"
    ASKER = "asker"
    LOCAL = "local"
    """Both: all users of the batch are under this AKMS."""


_UNANSWERED = (BATCHES.c.state == KeyState.RELEASED) & (BATCHES.c.part != Part.MAKER)


class Site(msgspec.Struct, frozen=True):
    """The slaves at one UKMS under this AKMS, and the identity of the store that holds their copies."""

    slaves: list[str]
    store: str = ""
    replaced_by: str = ""
    """The store that this UKMS had instead while the batch was being prepared: what came before it is lost."""


class BatchConflict(Exception):
    """A batch is not in the state that a step needs: it is void, or known with other contents."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as it is recorded; no key bits."""

    id: str
    part: Part
    peer: str
    """Service id of the other AKMS; empty where there is none."""
    request: str
    """The request that it answers: the UKMS's at the asker, the asker's at the maker."""
    grant: str
    master: str
    master_ukms: str
    """Empty at a maker."""
    slaves: list[str]
    sites: dict[str, Site]
    """By UKMS under this AKMS: the slaves there."""
    service_class: str
    size: int
    key_ids: list[UUID]
    expires: float
    """When the slaves' copies end, by this node's wall clock."""
    state: KeyState = KeyState.PREPARED
    exposed: bool = False
    """Whether CN bits that it was made under are exposed: what nobody got of it is withdrawn."""

    @property
    def for_peers(self) -> BatchState:
        """The state as other services hear it."""
        if self.state in (KeyState.RELEASED, KeyState.ISSUED, KeyState.EXPIRED, KeyState.DESTROYED):
            return BatchState.RELEASED
        return BatchState.PREPARED if self.state is KeyState.PREPARED else BatchState.VOID

    @property
    def is_tombstone(self) -> bool:
        """Whether a batch was void before it came: it never will, whoever laid the stone and whoever asks."""
        return self.part is Part.ASKER and self.state is KeyState.VOID and not self.key_ids

    def is_made_by(self, akms: str) -> bool:
        """Whether that AKMS makes it for a master under this one."""
        return self.part is Part.ASKER and self.peer == akms

    def among(self, key_ids: Iterable[UUID]) -> list[UUID]:
        """Those of its keys that are named, in its order."""
        wanted = set(key_ids)
        return [key_id for key_id in self.key_ids if key_id in wanted]


def record(connection: Connection, batch: Batch, bits: bytes | None = None) -> None:
    """Insert a batch; `bits` are sealed.

    Raises:
        BatchConflict: a batch of this id is recorded already.
    """
    if find(connection, batch.id) is not None:
        raise BatchConflict("a batch of this id is known")
    connection.execute(
        insert(BATCHES).values(
            batch=batch.id,
            part=batch.part,
            peer=batch.peer,
            request=batch.request,
            grant=batch.grant,
            master=batch.master,
            master_ukms=batch.master_ukms,
            slaves=msgspec.json.encode(batch.slaves),
            sites=msgspec.json.encode(batch.sites),
            service_class=batch.service_class,
            size=batch.size,
            key_ids=pack(batch.key_ids),
            state=batch.state,
            expires=batch.expires,
            bits=bits,
            exposed=batch.exposed,
        )
    )


def tombstone(connection: Connection, batch: str, peer: str, expires: float) -> None:
    """Record that a batch, of which nothing is known, will never be released here.

    Raises:
        BatchConflict: a batch of this id is known.
    """
    gone = Batch(batch, Part.ASKER, peer, "", "", "", "", [], {}, "", 0, [], expires, KeyState.VOID)
    record(connection, gone)


def find(connection: Connection, batch: str) -> Batch | None:
    """The batch of this id, None where none is recorded."""
    row = connection.execute(select(BATCHES).where(BATCHES.c.batch == batch)).one_or_none()
    return None if row is None else _batch(row)


def find_all(connection: Connection, names: Sequence[str]) -> list[Batch | None]:
    """The batches of these ids, None for each that is not recorded."""
    return [find(connection, name) for name in names]


def sealed_bits(connection: Connection, batch: str) -> bytes | None:
    """The sealed bits of a batch that is released and not handed over yet."""
    return connection.execute(select(BATCHES.c.bits).where(BATCHES.c.batch == batch)).scalar_one_or_none()


def move(connection: Connection, batch: str, event: KeyEvent, **columns: object) -> None:
    """Take one step of the table of key states; every step but release drops the bits.

    Raises:
        BatchConflict: the batch is unknown.
        IllegalTransition: the table has no such step.
    """
    state = connection.execute(select(BATCHES.c.state).where(BATCHES.c.batch == batch)).scalar_one_or_none()
    if state is None:
        raise BatchConflict("a batch of this id is not known")
    columns = {"bits": None, **columns, "state": after(KeyState(state), event)}
    connection.execute(update(BATCHES).where(BATCHES.c.batch == batch).values(columns))


def encode_sites(sites: Mapping[str, Site], stores: Mapping[str, str]) -> bytes:
    """The `sites` column, with the identities of the stores that hold the copies."""
    return msgspec.json.encode({ukms: Site(site.slaves, stores.get(ukms, site.store)) for ukms, site in sites.items()})


def replaced(connection: Connection, batch: Batch, ukms: str, store: str) -> None:
    """Note that a UKMS has a new store while it is open which one holds, or will hold, its copies of a batch."""
    sites = {**batch.sites, ukms: Site(batch.sites[ukms].slaves, replaced_by=store)}
    connection.execute(update(BATCHES).where(BATCHES.c.batch == batch.id).values(sites=msgspec.json.encode(sites)))


def is_lost(batch: Batch, stores: Mapping[str, str]) -> bool:
    """Whether slaves' copies went with a replaced store; `stores`: which store took them, as far as that is known."""
    return any(site.replaced_by and stores.get(ukms) != site.replaced_by for ukms, site in batch.sites.items())


def is_forfeit(batch: Batch, stores: Mapping[str, str]) -> bool:
    """Whether what nobody got of a batch is to be withdrawn as soon as it is released: exposed, or copies are lost."""
    return batch.exposed or is_lost(batch, stores)


def count_void(connection: Connection, part: Part) -> int:
    """How many batches of one part are on record as void."""
    void = (BATCHES.c.state == KeyState.VOID, BATCHES.c.part == part)
    return connection.execute(select(func.count()).select_from(BATCHES).where(*void)).scalar_one()


def in_state(connection: Connection, part: Part, state: KeyState) -> list[Batch]:
    """All batches of one part in one state."""
    rows = connection.execute(select(BATCHES).where(BATCHES.c.part == part, BATCHES.c.state == state))
    return [_batch(row) for row in rows]


def of_master(connection: Connection, master: str) -> list[Batch]:
    """Batches whose master is under this AKMS and that are recorded here."""
    rows = connection.execute(select(BATCHES).where(BATCHES.c.master == master, BATCHES.c.part != Part.MAKER))
    return [_batch(row) for row in rows]


def after_id(connection: Connection, batch: str, limit: int) -> list[Batch]:
    """The next batches in the order of their ids, to go through all of them in pieces."""
    rows = connection.execute(select(BATCHES).where(BATCHES.c.batch > batch).order_by(BATCHES.c.batch).limit(limit))
    return [_batch(row) for row in rows]


def shared(connection: Connection, peer: str, after: str, now: float, limit: int) -> list[str]:
    """Names of batches shared with another AKMS, released and not expired, in order, the first one after `after`."""
    released = (KeyState.RELEASED, KeyState.ISSUED, KeyState.DESTROYED)
    chosen = select(BATCHES.c.batch).where(
        BATCHES.c.batch > after, BATCHES.c.peer == peer, BATCHES.c.state.in_(released), BATCHES.c.expires > now
    )
    return list(connection.execute(chosen.order_by(BATCHES.c.batch).limit(limit)).scalars())


def unanswered(connection: Connection, ended: float) -> list[Batch]:
    """Batches whose slave copies end by then, and of which nobody has told that they were handed over."""
    rows = connection.execute(select(BATCHES).where(_UNANSWERED, BATCHES.c.expires <= ended))
    return [_batch(row) for row in rows]


def unanswered_by(connection: Connection, ukms: str) -> list[Batch]:
    """The same, of one master's UKMS, whenever they end."""
    rows = connection.execute(select(BATCHES).where(_UNANSWERED, BATCHES.c.master_ukms == ukms))
    return [_batch(row) for row in rows]


def destroy_handed_over(connection: Connection, ukms: str) -> None:
    """All batches that one master's UKMS has taken: its store is lost."""
    taken = (BATCHES.c.state == KeyState.ISSUED, BATCHES.c.master_ukms == ukms)
    connection.execute(update(BATCHES).where(*taken).values(state=after(KeyState.ISSUED, KeyEvent.DESTROY)))


def ended(connection: Connection, now: float, unanswered: float) -> list[Batch]:
    """Some of the batches whose slave copies have ended, at most `PURGE_CHUNK`; those that are `unanswered` by then."""
    over = (BATCHES.c.expires <= now, ~_UNANSWERED | (BATCHES.c.expires <= unanswered))
    rows = connection.execute(select(BATCHES).where(*over).limit(PURGE_CHUNK))
    return [_batch(row) for row in rows]


def counts(connection: Connection) -> list[dict[str, object]]:
    """How many batches are on record, by part and state."""
    columns = (BATCHES.c.part, BATCHES.c.state)
    rows = connection.execute(select(*columns, func.count()).group_by(*columns)).tuples()
    return [{"part": part, "state": state, "batches": number} for part, state, number in rows]


def purge(connection: Connection, ids: list[str]) -> None:
    """Delete records."""
    connection.execute(delete(BATCHES).where(BATCHES.c.batch.in_(ids)))


def _batch(row: Row[tuple[object, ...]]) -> Batch:
    return Batch(
        id=row.batch,
        part=Part(row.part),
        peer=row.peer,
        request=row.request,
        grant=row.grant,
        master=row.master,
        master_ukms=row.master_ukms,
        slaves=msgspec.json.decode(row.slaves, type=list[str]),
        sites=msgspec.json.decode(row.sites, type=dict[str, Site]),
        service_class=row.service_class,
        size=row.size,
        key_ids=unpack(row.key_ids),
        state=KeyState(row.state),
        expires=row.expires,
        exposed=row.exposed,
    )
