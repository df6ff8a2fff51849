"""Changes of authorisation: polled from AAA, carried out here and at the UKMSs, remembered durably.

A poll's serial, its epoch, the end of grants and the errands to UKMSs are one transaction. Only a UKMS that has the
master concerned is told.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from sqlalchemy import Connection, delete, insert, select, update

from keyhaul.keys.states import KeyState
from keyhaul.store.interface import Store
from keyhaul.transport.interface import Calls
from keyhaul.transport.messages.aaa import Changes as ChangesRequest
from keyhaul.transport.messages.aaa import ChangesReply, Revocation
from keyhaul.transport.messages.base import ServiceError
from keyhaul.transport.operations import AAA_CHANGES
from services.akms import batches, errands
from services.akms.errands import Errand, ErrandKind, Errands, Facts
from services.akms.grants import Grants
from services.akms.pace import Pace
from services.akms.permission import EPOCHS_BACK
from services.akms.tables import GRANT_COUNTS, GRANTS, PROGRESS


class GrantUsedUp(Exception):
    """A maker's own count says that a grant is used up or revoked."""


def count(connection: Connection, grant: str, epoch: int, allowance: int, number: int) -> None:
    """Add to the maker's own count of a grant, in the transaction that records the batch.

    Raises:
        GrantUsedUp: it would go beyond the allowance, or the grant was revoked.
    """
    row = connection.execute(select(GRANT_COUNTS).where(GRANT_COUNTS.c.grant == grant)).one_or_none()
    if row is None:
        connection.execute(insert(GRANT_COUNTS).values(grant=grant, epoch=epoch, used=0, revoked=False))
    used = 0 if row is None else row.used
    if (row is not None and row.revoked) or used + number > allowance:
        raise GrantUsedUp("the grant is revoked or its allowance is used up")
    connection.execute(update(GRANT_COUNTS).where(GRANT_COUNTS.c.grant == grant).values(used=used + number))


def uncount(connection: Connection, grant: str, number: int) -> None:
    """Take keys off the count that were never transferred, or that no slave has taken and none ever will."""
    row = GRANT_COUNTS.c.grant == grant
    connection.execute(update(GRANT_COUNTS).where(row).values(used=GRANT_COUNTS.c.used - number))


class Authorisation:
    """AAA's changes at one AKMS."""

    def __init__(self, store: Store, aaa: Calls, grants: Grants, errands: Errands, pace: Pace) -> None:
        self._store = store
        self._aaa = aaa
        self._grants = grants
        self._errands = errands
        self._pace = pace
        self._serial = 0
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """AAA's newest epoch known here."""
        return max(self._epoch, self._grants.newest_epoch)

    async def load(self) -> None:
        """Read back what the store has."""
        rows = await self._store.read(lambda c: {row.name: row.value for row in c.execute(select(PROGRESS))})
        self._serial, self._epoch = rows.get("serial", 0), rows.get("epoch", 0)

    async def run(self) -> None:
        """Poll for as long as the service runs."""
        while True:
            with suppress(ServiceError):
                await self.poll()
            await asyncio.sleep(self._pace.changes)

    async def poll(self) -> None:
        """Ask AAA once and carry out what it says.

        Raises:
            ServiceError: AAA cannot be asked.
        """
        reply = await self._aaa.call(AAA_CHANGES, ChangesRequest(since=self._serial), deadline=self._pace.call)
        if reply.serial == self._serial and reply.epoch == self._epoch and not reply.revocations:
            return
        ids, targets = await self._store.write(lambda connection: self._carry_out(connection, reply))
        self._serial, self._epoch = reply.serial, max(self._epoch, reply.epoch)
        self._grants.dropped(ids)
        self._errands.wake(*targets)

    def _carry_out(self, connection: Connection, reply: ChangesReply) -> tuple[list[str], set[str]]:
        epoch = max(self._epoch, reply.epoch)
        connection.execute(delete(PROGRESS))
        connection.execute(
            insert(PROGRESS), [{"name": "serial", "value": reply.serial}, {"name": "epoch", "value": epoch}]
        )
        connection.execute(delete(GRANT_COUNTS).where(GRANT_COUNTS.c.epoch < epoch - EPOCHS_BACK))
        if not reply.revocations:
            return [], set()
        self._grants.tidy(connection)
        ids = self._grants.drop(connection, reply.revocations)
        targets: set[str] = set()
        for revocation in reply.revocations:
            _refuse_as_maker(connection, revocation, epoch)
            targets |= _tell_ukmss(connection, revocation)
        return ids, targets


def _refuse_as_maker(connection: Connection, revocation: Revocation, epoch: int) -> None:
    for grant in revocation.grants:
        changed = update(GRANT_COUNTS).where(GRANT_COUNTS.c.grant == grant).values(revoked=True)
        if not connection.execute(changed).rowcount:
            connection.execute(insert(GRANT_COUNTS).values(grant=grant, epoch=epoch, used=0, revoked=True))


def _tell_ukmss(connection: Connection, revocation: Revocation) -> set[str]:
    """Errands to the master's UKMS: stop issuing, and give up what was released but did not reach it yet."""
    master = revocation.master
    ukmss = set(connection.execute(select(GRANTS.c.ukms).where(GRANTS.c.master == master)).scalars())
    held = batches.of_master(connection, master)
    ukmss |= {batch.master_ukms for batch in held if batch.master_ukms}
    facts = Facts(master=master, slaves=list(revocation.slaves))
    targets = {errands.add(connection, Errand(ErrandKind.REVOKE, ukms, facts=facts)) for ukms in ukmss}
    for batch in held:
        concerned = not revocation.slaves or set(batch.slaves) & set(revocation.slaves)
        if batch.state is KeyState.RELEASED and concerned:
            recall = Errand(ErrandKind.RECALL, batch.master_ukms, batch.id, expires=batch.expires)
            targets.add(errands.add(connection, recall))
    return targets
