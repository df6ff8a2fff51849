"""A grant that is held, and its allowance: what open requests claim of it, and what is spent when keys are released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from keyhaul.transport.messages.aaa import Grant
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from services.akms.tables import GRANT_COUNTS, GRANTS

Key = tuple[str, str, tuple[str, ...]]
"""UKMS, master, slaves in order of name."""


class AllowanceGone(Exception):
    """At the moment of release the grant was dropped or had too little left."""


@dataclass(slots=True, eq=False)
class HeldGrant:
    """One verified grant and what may still be delivered under it."""

    grant: Grant
    signed: bytes
    """Exact bytes for `peer.request`."""
    received: float
    """By this node's wall clock."""
    left: int
    reserved: int = 0
    """Part of `left` that open requests have claimed."""
    dropped: bool = False

    @property
    def free(self) -> int:
        """Keys that a new request may claim."""
        return 0 if self.dropped else self.left - self.reserved

    def lived(self, now: float) -> float:
        """Seconds since receipt; a clock set back counts as none."""
        return max(0.0, now - self.received)


def spend(connection: Connection, grant: str, number: int) -> None:
    """Reduce a grant's allowance, in the transaction that releases the keys.

    Raises:
        AllowanceGone: it was dropped meanwhile, or has too little left.
    """
    enough = (GRANTS.c.id == grant) & (GRANTS.c.left >= number) & GRANTS.c.dropped.is_(False)
    if connection.execute(update(GRANTS).where(enough).values(left=GRANTS.c.left - number)).rowcount != 1:
        raise AllowanceGone("the grant was dropped or its allowance is used up")


def key_of(ukms: str, master: str, slaves: Sequence[str]) -> Key:
    """The key under which grants are looked up."""
    return ukms, master, tuple(sorted(slaves))


def record(connection: Connection, key: Key, held: HeldGrant, gone: list[str]) -> None:
    """Record a grant instead of those that are gone.

    One of an id that the store knows (dropped, or used up) is not taken twice; nor one whose revocation was
    heard of while AAA's answer was under way.

    Raises:
        ServiceError: not-permitted.
    """
    known = connection.execute(select(GRANTS.c.id).where(GRANTS.c.id == held.grant.id)).first()
    ended = (GRANT_COUNTS.c.grant == held.grant.id, GRANT_COUNTS.c.revoked.is_(True))
    if known is not None or connection.execute(select(GRANT_COUNTS.c.grant).where(*ended)).first() is not None:
        raise ServiceError(ErrorCode.NOT_PERMITTED, "not permitted")
    connection.execute(delete(GRANTS).where(GRANTS.c.id.in_(gone)))
    ukms, master, slaves = key
    connection.execute(
        insert(GRANTS).values(
            id=held.grant.id,
            ukms=ukms,
            master=master,
            slaves=msgspec.json.encode(slaves),
            signed=held.signed,
            left=held.left,
            received=held.received,
            dropped=False,
        )
    )
