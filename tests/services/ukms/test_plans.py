"""The statements behind requests, pushes and upkeep find their rows by key, however many copies are in store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event

from keyhaul.identity.names import SaeId
from keyhaul.transport.messages.access import Push
from services.ukms import ends, reconcile
from services.ukms.arrivals import Arrival, arrive
from services.ukms.copies import fetch, issue, take_back
from services.ukms.leases import Leased, Stored
from services.ukms.tables import metadata, requests

MASTER, SLAVE = SaeId("a"), SaeId("b")
NOW, UNTIL = 0.0, 1000.0


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as opened:
        metadata.create_all(opened)
        yield opened
    engine.dispose()


@pytest.fixture
def plans(connection: Connection) -> list[str]:
    """What SQLite plans for each statement from now on."""
    found: list[str] = []

    @event.listens_for(connection, "before_cursor_execute")
    def explain(_connection: Any, cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        rows = cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters[0] if many else parameters).fetchall()
        found.extend(row[-1] for row in rows)

    return found


def fill(connection: Connection, batch: str, number: int) -> list[Stored]:
    """Copies of a master and of a slave of this site."""
    request = {"request": batch, "master": MASTER, "slaves": '["b"]', "size": 256, "remaining": number, "made": NOW}
    connection.execute(requests.insert(), [request])
    key_ids = [uuid.uuid4() for _ in range(number)]
    push = Push(
        batch=batch,
        request=batch,
        master=MASTER,
        slaves=[SLAVE],
        held_for=[SLAVE],
        for_master=True,
        key_ids=key_ids,
        size=256,
        service_class="silver",
        lifetime_ms=1,
    )
    sealed = dict.fromkeys(key_ids, b"sealed")
    arrive(connection, Arrival(push, UNTIL, UNTIL, {("master", MASTER): sealed, ("slave", SLAVE): sealed}), NOW)
    return [Stored(key_id, UNTIL, batch, position) for position, key_id in enumerate(key_ids)]


def walks(plans: list[str]) -> list[str]:
    """Plans that look at rows of other requests' keys."""
    return [plan for plan in plans if plan.startswith("SCAN") or "AUTOMATIC" in plan]


@pytest.mark.parametrize("number", [1, 2, 10, 128])
def test_issue_and_fetch_walk_nothing(connection: Connection, plans: list[str], number: int) -> None:
    for batch in "123":
        stored = fill(connection, batch, 200)[:number]
    plans.clear()
    found = issue(connection, MASTER, stored, NOW)
    take_back(connection, MASTER, [Leased(one, found[one.key_id]) for one in stored])
    assert issue(connection, MASTER, stored, NOW) == found
    assert len(fetch(connection, SLAVE, MASTER, [one.key_id for one in stored], NOW)) == number
    assert any(
        "SEARCH copies USING PRIMARY KEY (batch=? AND side=? AND holder=? AND position" in plan for plan in plans
    )
    assert walks(plans) == []


def test_a_run_of_keys_is_one_range(connection: Connection) -> None:
    stored = fill(connection, "1", 200)
    statements: list[int] = []

    @event.listens_for(connection, "before_cursor_execute")
    def count(_connection: Any, _cursor: Any, _statement: str, parameters: Any, _context: Any, many: bool) -> None:
        statements.append(len(parameters) if many else 1)

    issue(connection, MASTER, stored[:128], NOW)
    assert statements == [1, 1]


def test_void_and_upkeep_walk_nothing(connection: Connection, plans: list[str]) -> None:
    for batch in "123":
        stored = fill(connection, batch, 20)
    plans.clear()
    reconcile.void(connection, "3", [stored[0].key_id], NOW)
    assert ends.expire(connection, UNTIL) == 2 * 59
    (*_, (batch, key_ids)) = ends.unfetched(connection, UNTIL).items()
    ends.withdrawn(connection, batch, key_ids, UNTIL)
    assert walks(plans) == []
    assert ends.purge(connection, UNTIL) == 0
    assert [plan for plan in walks(plans) if "copies" in plan or "parts" in plan or "places" in plan] == []
