"""What is durable of exposures: which were acted upon, which batches were made under exposed CN bits, and what of them
was issued all the same.

Functions over a connection. Who records, settles or releases a batch looks within its transaction whether the CN bits
are exposed by then; the store has one transaction at a time, so who flags after that finds all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, delete, func, select, update

from keyhaul.keys.states import KeyState
from services.akms import batches, errands
from services.akms.batches import Batch, Part
from services.akms.errands import Errand, ErrandKind
from services.akms.tables import BATCHES, COMPROMISED, EXPOSURES

KEPT = 60 * 86_400.0
"""Seconds for which an exposure is known by its name: longer than anybody tells of it."""

_GIVEN = (KeyState.PREPARED, KeyState.RELEASED, KeyState.ISSUED, KeyState.DESTROYED)
"""The states of batches of which somebody may have keys, or get some."""


def all_known(connection: Connection) -> dict[str, bool]:
    """The exposures that were acted upon, and whether their paths had left the node by then."""
    return {row.exposure: row.over for row in connection.execute(select(EXPOSURES))}


def note(connection: Connection, exposure: str, over: bool, now: float) -> None:
    """Record that an exposure was acted upon; those that nobody tells of any more are forgotten."""
    former = (EXPOSURES.c.exposure == exposure) | (EXPOSURES.c.at < now - KEPT)
    connection.execute(delete(EXPOSURES).where(former))
    connection.execute(EXPOSURES.insert().values(exposure=exposure, over=over, at=now))


def concerned(connection: Connection, part: Part, peer: str, service_class: str) -> list[str]:
    """The names of all batches made under CN bits of a class with a peer that are not flagged yet."""
    which = (BATCHES.c.part == part, BATCHES.c.peer == peer, BATCHES.c.service_class == service_class)
    alive = (BATCHES.c.state.in_(_GIVEN), BATCHES.c.exposed.is_(False))
    return list(connection.execute(select(BATCHES.c.batch).where(*which, *alive)).scalars())


def flag(connection: Connection, names: Sequence[str]) -> tuple[list[str], int]:
    """Flag batches as exposed, and have withdrawn what nobody got of them.

    What is still prepared is withdrawn when it is settled, or never released. Of what the master's UKMS lost nobody can
    tell what was issued: all of it counts.

    Returns:
        The targets of new errands, and how many keys the batches have.
    """
    targets: list[str] = []
    keys = 0
    for batch in filter(None, batches.find_all(connection, names)):
        connection.execute(update(BATCHES).where(BATCHES.c.batch == batch.id).values(exposed=True))
        keys += len(batch.key_ids)
        if batch.part is Part.MAKER and batch.state is KeyState.RELEASED:
            errand = Errand(ErrandKind.VOID_AT_ASKER, batch.peer, batch.id, expires=batch.expires)
            targets.append(errands.add(connection, errand))
        elif batch.part is Part.ASKER and batch.state in (KeyState.RELEASED, KeyState.ISSUED):
            recall = Errand(ErrandKind.RECALL, batch.master_ukms, batch.id, expires=batch.expires)
            targets.append(errands.add(connection, recall))
        elif batch.state is KeyState.DESTROYED:
            note_issued(connection, replace(batch, exposed=True), len(batch.key_ids))
    return targets, keys


def note_issued(connection: Connection, batch: Batch, issued: int) -> None:
    """Record how many keys of an exposed batch the master had got before they were called back."""
    if batch.exposed:
        more = (BATCHES.c.batch == batch.id, BATCHES.c.compromised < issued)
        connection.execute(update(BATCHES).where(*more).values(compromised=issued))


def issued(connection: Connection) -> list[dict[str, object]]:
    """What was issued of exposed batches on record, by master: for operators of this AKMS, who know its users."""
    total = func.sum(BATCHES.c.compromised)
    columns = (BATCHES.c.master, BATCHES.c.part, BATCHES.c.peer, BATCHES.c.service_class)
    rows = connection.execute(select(*columns, total).where(COMPROMISED).group_by(*columns))
    return [
        {"master": master, "part": part, "peer": peer, "class": service_class, "keys": int(keys)}
        for master, part, peer, service_class, keys in rows
    ]
