"""What is exposed: keys of a source, a target and a class that nodes in quarantine may know, as both ends are told.

Each exposure has an identity that is drawn at random and means "all up to now"; a later one of the same three takes
its place. So a database that was put back from a backup never tells something new under a name that the ends know.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, delete, or_, select

from controller.state.clock import wall
from controller.state.counters import add
from controller.state.schema import EXPOSED, exposures
from keyhaul.database.rows import replace_rows
from keyhaul.randomness import identifier

KEPT = 37 * 86_400
"""Seconds: the longest life of a key (30 days), and the longest for which a node goes on over a path of which no
controller hears (7 days)."""


class Kind(NamedTuple):
    """What keys belong to."""

    source: str
    """The CKMS that hands them in."""
    target: str
    service_class: str


@dataclass(frozen=True, slots=True)
class Exposure:
    """All keys of a kind that were sent until its ends hear of it."""

    id: str
    kind: Kind


def expose(connection: Connection, kinds: Collection[Kind]) -> None:
    """Record that all keys of these kinds are exposed up to now."""
    if not kinds:
        return
    now = int(wall(connection))
    connection.execute(delete(exposures).where(exposures.c.at < now - KEPT))
    replace_rows(connection, exposures, [{**kind._asdict(), "id": identifier(), "at": now} for kind in kinds])
    add(connection, EXPOSED, len(kinds))


def of(connection: Connection, node: str) -> list[Exposure]:
    """What concerns a node as source or target, in a fixed order."""
    mine = or_(exposures.c.source == node, exposures.c.target == node)
    order = (exposures.c.source, exposures.c.target, exposures.c.service_class)
    rows = connection.execute(select(exposures).where(mine).order_by(*order))
    return [Exposure(row.id, Kind(row.source, row.target, row.service_class)) for row in rows]
