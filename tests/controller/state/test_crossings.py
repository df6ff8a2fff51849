"""Which nodes keys crossed is on record as long as they live, and quarantine exposes those that its nodes may know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest
from sqlalchemy import select, update

from controller.promises import Promise
from controller.remembering import Batch
from controller.state import crossings, demands, exposures, plans
from controller.state.counters import value
from controller.state.crossings import Crossed, is_exposed
from controller.state.exposures import KEPT, Kind
from controller.state.schema import EXPOSED
from controller.state.schema import crossings as table
from controller.state.schema import exposures as exposed
from controller.steering.effects import Ended, Remember
from keyhaul.database.database import Database

NUMBERS = count(1)
OVER_M = [Crossed(0, node) for node in ("a", "m", "b")]
OVER_D = [Crossed(0, node) for node in ("a", "d", "b")]


def promise(source: str = "a", target: str = "b", service_class: str = "silver") -> Promise:
    return Promise(f"{next(NUMBERS):032}", source, target, service_class, 10, 60.0, ())


def cross(database: Database, one: Promise, *crossed: Crossed) -> None:
    database.transact(lambda c: crossings.record(c, one, crossed))


def suspect(database: Database, node: str) -> int:
    """As the controller puts a node in quarantine."""

    def write(connection):  # type: ignore[no-untyped-def]
        again = node in plans.quarantined(connection)
        plans.quarantine(connection, node, "suspected")
        return crossings.suspect(connection, node, again=again)

    return int(database.transact(write))


def told(database: Database, node: str) -> dict[Kind, str]:
    return {one.kind: one.id for one in database.transact(lambda c: exposures.of(c, node))}


SILVER = Kind("a", "b", "silver")


def test_keys_that_crossed_a_node_are_exposed_when_it_is_suspected_and_both_ends_hear_it(
    reopen: Callable[[], Database],
) -> None:
    database = reopen()
    cross(database, promise(), *OVER_M)
    cross(database, promise("a", "c"), Crossed(0, "a"), Crossed(0, "d"), Crossed(0, "c"))
    database = reopen()
    assert suspect(database, "m") == 1
    database = reopen()
    assert told(database, "a").keys() == told(database, "b").keys() == {SILVER}
    assert told(database, "c") == told(database, "m") == {}
    assert database.transact(lambda c: value(c, EXPOSED)) == 1


def test_what_moved_away_before_is_exposed_as_well(database: Database) -> None:
    one = promise()
    cross(database, one, *OVER_M)
    cross(database, one, *OVER_D)
    assert suspect(database, "m") == 1
    assert told(database, "a").keys() == {SILVER}


def test_a_demand_that_is_over_is_exposed_as_well(database: Database) -> None:
    one = promise()
    crossed = frozenset((crossing.rank, crossing.node) for crossing in OVER_M)
    database.transact(Batch((Remember(one, crossed),)).write)
    database.transact(Batch((Ended(one.id),)).write)
    assert database.transact(demands.load) == []
    assert database.transact(lambda c: c.execute(select(table.c.until)).scalars().all())[0] is not None
    assert suspect(database, "m") == 1


def test_a_quarantine_that_is_repeated_exposes_nothing_twice_and_one_that_is_set_anew_does(database: Database) -> None:
    cross(database, promise(), *OVER_M)
    suspect(database, "m")
    first = told(database, "a")
    assert suspect(database, "m") == 1
    assert told(database, "a") == first
    database.transact(lambda c: plans.release(c, "m"))
    assert told(database, "a") == first, "what is exposed stays so"
    assert suspect(database, "m") == 1
    assert told(database, "a")[SILVER] != first[SILVER]


def test_whoever_crosses_a_node_in_quarantine_all_the_same_is_exposed_at_that_moment(database: Database) -> None:
    assert suspect(database, "m") == 0
    one = promise()
    cross(database, one, *OVER_M)
    first = told(database, "b")
    assert first.keys() == {SILVER}
    cross(database, one, *OVER_M)
    assert told(database, "b") == first, "the same again, after a transaction of unknown outcome, is nothing new"
    cross(database, one, *OVER_D)
    assert told(database, "b") == first
    cross(database, one, *OVER_M)
    assert told(database, "b")[SILVER] != first[SILVER]


def test_a_node_at_an_end_knows_all_that_begins_or_ends_there(database: Database) -> None:
    cross(database, promise("a", "b", "split"), *OVER_M, *(crossing._replace(rank=1) for crossing in OVER_D))
    cross(database, promise("b", "a"), *OVER_D)
    assert suspect(database, "b") == 2
    assert told(database, "a").keys() == {Kind("a", "b", "split"), Kind("b", "a", "silver")}


def test_shares_are_exposed_by_nodes_on_each_of_their_paths_and_by_no_single_one(database: Database) -> None:
    one = promise(service_class="split")
    cross(database, one, *OVER_M, *(crossing._replace(rank=1) for crossing in OVER_D))
    assert suspect(database, "m") == 0
    # Today it has the other share: still no key of which it had both.
    cross(database, one, *OVER_D, *(crossing._replace(rank=1) for crossing in OVER_M))
    assert told(database, "a") == {}
    assert suspect(database, "d") == 1
    assert told(database, "a").keys() == {Kind("a", "b", "split")}


@pytest.mark.parametrize(
    ("service_class", "crossed", "expected"),
    [
        ("gold", {}, False),
        ("gold", {1: {"m"}}, True),
        ("a class of a later release", {0: {"m"}}, True),
        ("split", {0: {"m", "n"}}, False),
        ("split", {0: {"m"}, 1: {"m"}}, False),
        ("split", {0: {"m"}, 1: {"m", "n"}}, True),
        ("split", {0: {"a"}}, True),
    ],
)
def test_who_may_know_what(service_class: str, crossed: dict[int, set[str]], expected: bool) -> None:
    assert is_exposed(Kind("a", "b", service_class), crossed) is expected


def test_what_was_left_longer_ago_than_keys_live_is_forgotten(database: Database) -> None:
    old, recent = promise(), promise("a", "c")
    for one in (old, recent):
        cross(database, one, Crossed(0, "m"))
        cross(database, one)
    long_ago = update(table).where(table.c.target == "b").values(until=table.c.until - KEPT - 60)
    database.transact(lambda c: c.execute(long_ago) and None)
    cross(database, promise("x", "y"), Crossed(0, "m"))
    assert suspect(database, "m") == 2
    assert told(database, "a").keys() == {Kind("a", "c", "silver")}


def test_a_database_that_was_put_back_tells_what_is_new_under_other_names(database: Database) -> None:
    cross(database, promise(), *OVER_M)
    suspect(database, "m")
    known = told(database, "a")[SILVER]
    # A copy from before the quarantine is put back, and the operator sets it again.
    database.transact(lambda c: plans.release(c, "m"))
    database.transact(lambda c: c.execute(exposed.delete()) and None)
    suspect(database, "m")
    assert told(database, "a")[SILVER] != known


def test_all_of_a_batch_is_remembered_or_nothing(database: Database) -> None:
    one = promise()
    suspect(database, "m")

    class Fails(Exception):
        pass

    def write(connection):  # type: ignore[no-untyped-def]
        Batch((Remember(one, frozenset({(0, "m")})),)).write(connection)
        raise Fails

    with pytest.raises(Fails):
        database.transact(write)
    assert told(database, "a") == {}
    assert database.transact(demands.load) == []
    database.transact(Batch((Remember(replace(one), frozenset({(0, "m")})),)).write)
    assert told(database, "a").keys() == {SILVER}
