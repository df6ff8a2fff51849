"""Rights that ended, with serial numbers, for AKMSs to ask after (`aaa.changes`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from sqlalchemy import Connection, insert, select, update

from aaa import counters
from aaa.rights import Place, Rights
from aaa.schema import EPOCH, REVOCATION, grants, revocations
from keyhaul.transport.messages.aaa import ChangesReply, Revocation

PER_REPLY = 1_000
"""Revocations looked through for one answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """A master's rights that ended: with these slaves, or all of them (none named)."""

    master: str
    slaves: tuple[str, ...]
    akmss: frozenset[str]
    """Whom it concerns: the AKMSs of the master and of the slaves."""


def differences(before: dict[str, Rights], after: dict[str, Rights]) -> list[Ended]:
    """What a change of the directory takes away.

    A master that went, moved to another site or has other terms loses all (it gets new grants on the new terms); a
    slave that went, moved or is not permitted any more is lost alone.
    """
    ended = []
    for master, old in sorted(before.items()):
        if not old.slaves:
            continue
        new = after.get(master)
        if new is None or new.place != old.place or new.terms != old.terms:
            ended.append(Ended(master, (), _concerned(old.place, old.slaves.values())))
            continue
        lost = sorted(slave for slave, place in old.slaves.items() if new.slaves.get(slave) != place)
        if lost:
            everyone = len(lost) == len(old.slaves)
            concerned = _concerned(old.place, (old.slaves[slave] for slave in lost))
            ended.append(Ended(master, () if everyone else tuple(lost), concerned))
    return ended


def record(connection: Connection, ended: Ended, now: int) -> int:
    """Record that rights ended, and end the grants that stand on them; return the serial."""
    serial = counters.add(connection, REVOCATION)
    query = select(grants.c.id, grants.c.slaves).where(grants.c.master == ended.master, ~grants.c.revoked)
    gone = [id_ for id_, slaves in connection.execute(query) if not ended.slaves or set(slaves) & set(ended.slaves)]
    connection.execute(
        insert(revocations).values(
            serial=serial,
            master=ended.master,
            slaves=list(ended.slaves),
            grants=gone,
            akmss=sorted(ended.akmss),
            ended_at=now,
        )
    )
    for some in _portions(gone):
        connection.execute(update(grants).where(grants.c.id.in_(some)).values(revoked=True))
    return serial


def changes(connection: Connection, akms: str, since: int) -> ChangesReply:
    """What ended after that serial as far as it concerns this AKMS.

    A serial that AAA has not reached yet means that its database was restored: then all is told again.
    """
    last = counters.value(connection, REVOCATION)
    start = since if 0 <= since <= last else 0
    query = select(revocations).where(revocations.c.serial > start).order_by(revocations.c.serial).limit(PER_REPLY)
    rows = connection.execute(query).all()
    told = [
        Revocation(serial=row.serial, master=row.master, slaves=row.slaves, grants=row.grants)
        for row in rows
        if akms in row.akmss
    ]
    reached = rows[-1].serial if len(rows) == PER_REPLY else last
    return ChangesReply(serial=reached, epoch=counters.value(connection, EPOCH), revocations=told)


def _concerned(master: Place, slaves: Iterable[Place]) -> frozenset[str]:
    return frozenset({master.akms}) | {place.akms for place in slaves}


def _portions(ids: list[str]) -> Iterable[list[str]]:
    return (ids[start : start + 500] for start in range(0, len(ids), 500))
