"""Which nodes keys crossed, or may have: kept for as long as keys live, and what becomes of that in a quarantine.

A node is crossed while it is on a path or detour that is in force or being installed. Whoever records that a node in
quarantine is crossed anew records in the same transaction what is exposed by it: none is crossed in between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, delete, select, tuple_, update

from controller.admission.classes import CLASSES
from controller.promises import Promise
from controller.state.clock import wall
from controller.state.exposures import KEPT, Kind, expose
from controller.state.plans import quarantined
from controller.state.schema import crossings, demands
from keyhaul.database.rows import replace_rows


class Crossed(NamedTuple):
    """A node on a way."""

    rank: int
    """Of the path; of class split, the number of the share."""
    node: str


def record(connection: Connection, promise: Promise, crossed: Collection[Crossed]) -> None:
    """Record which nodes the keys of a demand may cross from now on; all others they cross no more."""
    kind = Kind(promise.source, promise.target, promise.service_class)
    open_ = (*_of(kind), crossings.c.until.is_(None))
    known = {Crossed(row.rank, row.node) for row in connection.execute(select(crossings).where(*open_))}
    new, left = set(crossed) - known, known - set(crossed)
    if not new and not left:
        return
    now = int(wall(connection))
    if left:
        gone = tuple_(crossings.c.rank, crossings.c.node).in_(sorted(left))
        connection.execute(update(crossings).where(*open_, gone).values(until=now))
    replace_rows(connection, crossings, [{**kind._asdict(), **one._asdict(), "until": None} for one in new])
    connection.execute(delete(crossings).where(crossings.c.until < now - KEPT))
    suspected = quarantined(connection).keys()
    if not suspected.isdisjoint(one.node for one in new) and _exposed(connection, suspected, and_(*_of(kind))):
        expose(connection, [kind])


def end(connection: Connection, ids: Sequence[str]) -> None:
    """Demands are over: their keys cross nothing any more."""
    for row in connection.execute(select(demands).where(demands.c.id.in_(ids))).all():
        mine = (*_of(Kind(row.source, row.target, row.service_class)), crossings.c.until.is_(None))
        connection.execute(update(crossings).where(*mine).values(until=int(wall(connection))))


def suspect(connection: Connection, node: str, *, again: bool) -> int:
    """Record what is exposed by a node that is in quarantine; return how many kinds of keys are.

    Args:
        connection: the leader's transaction.
        node: in quarantine.
        again: it was so before: then what it crossed is exposed already, and nothing is burned twice.
    """
    crossed_by = select(crossings.c.source, crossings.c.target, crossings.c.service_class).where(
        crossings.c.node == node
    )
    candidates = {Kind(*row) for row in connection.execute(crossed_by.distinct())}
    found = candidates & _exposed(connection, quarantined(connection).keys())
    if not again:
        expose(connection, sorted(found))
    return len(found)


def is_exposed(kind: Kind, crossed: Mapping[int, Set[str]]) -> bool:
    """Whether nodes together may know keys of a kind.

    A node at an end knows all that it hands in or gets. Between the ends each node knows what crossed it; of class
    split that is one share of a key, so that it takes another node for each.

    Args:
        kind: of the keys.
        crossed: those of the nodes that they crossed, by rank.
    """
    if any({kind.source, kind.target} & nodes for nodes in crossed.values()):
        return True
    known = CLASSES.get(kind.service_class)
    return bool(crossed) and _apart(tuple(crossed.values())) >= (1 if known is None else known.shares)


def _apart(shares: Sequence[Set[str]], taken: frozenset[str] = frozenset()) -> int:
    """For how many of the shares there is a node that is not counted for another."""
    if not shares:
        return 0
    first, rest = shares[0], shares[1:]
    return max([_apart(rest, taken), *(1 + _apart(rest, taken | {node}) for node in first - taken)])


def _exposed(connection: Connection, suspected: Collection[str], which: ColumnElement[bool] | None = None) -> set[Kind]:
    """The kinds of keys that these nodes together may know; of those that are meant."""
    ranks: dict[Kind, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    query = select(crossings).where(crossings.c.node.in_(suspected))
    for row in connection.execute(query if which is None else query.where(which)):
        ranks[Kind(row.source, row.target, row.service_class)][row.rank].add(row.node)
    return {kind for kind, crossed in ranks.items() if is_exposed(kind, crossed)}


def _of(kind: Kind) -> tuple[ColumnElement[bool], ...]:
    table = crossings.c
    return table.source == kind.source, table.target == kind.target, table.service_class == kind.service_class
