"""What CKMSs were told: recorded before it is sent, so that nothing half-installed is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from controller.state.schema import statements


@dataclass(frozen=True, slots=True)
class Statement:
    """One signed statement for one CKMS."""

    serial: int
    epoch: int
    node: str
    demand: str
    """Whose path it is part of."""
    rank: int
    """Of that path."""
    body: bytes
    signature: bytes
    installed: bool = False
    """Whether the CKMS confirmed it."""


def record(connection: Connection, about_to_send: Sequence[Statement]) -> None:
    """Record statements that are to be sent."""
    rows = [
        {
            "serial": one.serial,
            "epoch": one.epoch,
            "node": one.node,
            "demand": one.demand,
            "rank": one.rank,
            "body": one.body,
            "signature": one.signature,
            "installed": one.installed,
        }
        for one in about_to_send
    ]
    if rows:
        connection.execute(insert(statements), rows)


def confirm(connection: Connection, serials: Sequence[int]) -> None:
    """Record that CKMSs have accepted statements."""
    connection.execute(update(statements).where(statements.c.serial.in_(serials)).values(installed=True))


def forget(connection: Connection, serials: Sequence[int]) -> None:
    """Drop statements that were withdrawn, or that are known never to have arrived."""
    connection.execute(delete(statements).where(statements.c.serial.in_(serials)))


def load(connection: Connection, *, node: str | None = None, demand: str | None = None) -> list[Statement]:
    """Statements by serial: all of them, those for one CKMS, or those of one demand."""
    query = select(statements).order_by(statements.c.serial)
    if node is not None:
        query = query.where(statements.c.node == node)
    if demand is not None:
        query = query.where(statements.c.demand == demand)
    return [
        Statement(row.serial, row.epoch, row.node, row.demand, row.rank, row.body, row.signature, row.installed)
        for row in connection.execute(query)
    ]
