"""The statements behind a request find their rows by key, however many copies are in store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, insert

from keyhaul.identity.names import SaeId
from keyhaul.keys.states import KeyState
from services.ukms.copies import fetch, issue
from services.ukms.tables import batches, copies, metadata

MASTER, SLAVE = SaeId("a"), SaeId("b")
NOW, UNTIL = 0.0, 1000.0


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as opened:
        metadata.create_all(opened)
        yield opened
    engine.dispose()


def fill(connection: Connection, number: int) -> list[uuid.UUID]:
    key_ids = [uuid.uuid4() for _ in range(number)]
    batch = {"batch": "1" * 32, "master": MASTER, "slaves": '["b"]', "service_class": "silver", "size": 256}
    batch |= {"number": number, "digest": b"", "for_master": True, "held_for": '["b"]', "void": False}
    connection.execute(insert(batches), [batch | {"settled": True, "until": UNTIL}])
    for side, holder, state in (("master", MASTER, KeyState.RELEASED), ("slave", SLAVE, KeyState.HELD)):
        copy = {"side": side, "holder": holder, "state": state, "batch": "1" * 32, "bits": b"sealed", "until": UNTIL}
        connection.execute(insert(copies), [copy | {"key_id": one.bytes} for one in key_ids])
    return key_ids


@pytest.mark.parametrize("number", [1, 2, 10, 128])
def test_issue_and_fetch_walk_no_index_of_states(connection: Connection, number: int) -> None:
    key_ids = fill(connection, 600)[:number]
    plans: list[str] = []

    @event.listens_for(connection, "before_cursor_execute")
    def explain(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        rows = cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
        plans.extend(row[-1] for row in rows)

    assert len(issue(connection, MASTER, key_ids, NOW)) == number
    assert len(fetch(connection, SLAVE, MASTER, key_ids, NOW)) == number
    assert any("PRIMARY KEY" in plan for plan in plans)
    assert not [plan for plan in plans if "copies_by_end" in plan or plan.startswith("SCAN")]
