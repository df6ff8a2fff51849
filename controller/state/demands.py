"""What was promised: demands and what each of their paths reserves on each hop.

A demand is a lease. It ends when it was not renewed for its lifetime, which the leader counts by its own clock and
in memory: renewing writes nothing. A new leader gives each demand its whole lifetime anew, so that a change of leader
makes reservations last longer, never shorter, and no clock of another machine counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, insert, select

from controller.promises import Hop, Promise
from controller.state.clock import wall
from controller.state.schema import demands, reservations
from keyhaul.database.rows import replace_rows


def admit(connection: Connection, promise: Promise) -> None:
    """Record a demand, or the new paths of one that is there."""
    row = {
        "id": promise.id,
        "source": promise.source,
        "target": promise.target,
        "service_class": promise.service_class,
        "rate": promise.rate,
        "terms": dict(promise.terms),
        "lifetime": promise.lifetime,
        "admitted_at": int(wall(connection)),
    }
    replace_rows(connection, demands, [row])
    connection.execute(delete(reservations).where(reservations.c.demand == promise.id))
    hops = [
        {
            "demand": promise.id,
            "rank": rank,
            "position": position,
            "link": hop.link,
            "sender": hop.sender,
            "rate": hop.rate,
        }
        for rank, path in enumerate(promise.paths)
        for position, hop in enumerate(path)
    ]
    if hops:
        connection.execute(insert(reservations), hops)


def end(connection: Connection, ids: Sequence[str]) -> None:
    """Give back what demands reserved; those that are unknown are passed over."""
    connection.execute(delete(reservations).where(reservations.c.demand.in_(ids)))
    connection.execute(delete(demands).where(demands.c.id.in_(ids)))


def load(connection: Connection) -> list[Promise]:
    """All demands, by id."""
    paths: dict[str, dict[int, list[Hop]]] = defaultdict(lambda: defaultdict(list))
    order = (reservations.c.demand, reservations.c.rank, reservations.c.position)
    for row in connection.execute(select(reservations).order_by(*order)):
        paths[row.demand][row.rank].append(Hop(row.link, row.sender, row.rate))
    return [
        Promise(
            row.id,
            row.source,
            row.target,
            row.service_class,
            row.rate,
            row.lifetime,
            tuple(tuple(path) for path in paths[row.id].values()),
            row.terms,
        )
        for row in connection.execute(select(demands).order_by(demands.c.id))
    ]


def reserved(connection: Connection) -> dict[tuple[str, str], int]:
    """Bits per second promised, by link and the node that sends."""
    total = func.sum(reservations.c.rate).label("total")
    by = (reservations.c.link, reservations.c.sender)
    return {(row.link, row.sender): int(row.total) for row in connection.execute(select(*by, total).group_by(*by))}
