"""A store of the first schema becomes one of this release, with all that it held."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from sqlalchemy import Connection, create_engine, insert, inspect, select, text

from keyhaul.identity.names import SaeId
from keyhaul.keys.states import KeyState
from services.ukms import copies, ends
from services.ukms.copies import MASTER, SLAVE
from services.ukms.leases import Stored
from services.ukms.schema import SCHEMA
from services.ukms.tables import batches, parts, requests
from services.ukms.tables import copies as copies_table

FIRST = """
CREATE TABLE copies (
  key_id BLOB NOT NULL, side VARCHAR(6) NOT NULL, holder VARCHAR(64) NOT NULL, batch VARCHAR(64) NOT NULL,
  state VARCHAR(12) NOT NULL, bits BLOB, until DOUBLE NOT NULL, PRIMARY KEY (key_id, side, holder)
) WITHOUT ROWID;
CREATE INDEX copies_by_batch ON copies (batch);
CREATE INDEX copies_by_end ON copies (state, until);
"""

ALICE, BOB = SaeId("alice"), SaeId("bob")
KEYS = [UUID(int=number) for number in (9, 3, 7, 5, 1)]
LIFE = 1_000.0

HELD: tuple[tuple[UUID, str, SaeId, str, bytes | None, float], ...] = (
    (KEYS[0], MASTER, ALICE, "b1", b"m0", LIFE),
    (KEYS[1], MASTER, ALICE, "b1", None, 700.0),
    (KEYS[2], MASTER, ALICE, "b1", None, 90.0),
    (KEYS[0], SLAVE, BOB, "b1", b"s0", LIFE),
    (KEYS[1], SLAVE, BOB, "b1", b"s1", LIFE),
    (KEYS[3], SLAVE, BOB, "b2", None, 50.0),
    (KEYS[4], SLAVE, BOB, "b2", b"s4", LIFE),
)
STATES = ("released", "issued", "expired", "held", "held", "void", "held")


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        for statement in FIRST.split(";"):
            if statement.strip():
                connection.execute(text(statement))
        batches.create(connection)
        requests.create(connection)
        for batch in ("b1", "b2"):
            row = {"batch": batch, "master": ALICE, "slaves": '["bob"]', "service_class": "silver", "size": 256}
            rest = {"number": 3, "digest": bytes(32), "for_master": batch == "b1", "held_for": '["bob"]'}
            connection.execute(insert(batches).values(row | rest | {"void": False, "settled": False, "until": LIFE}))
        for (key_id, side, holder, batch, bits, until), state in zip(HELD, STATES, strict=True):
            connection.execute(
                text("INSERT INTO copies VALUES (:key_id, :side, :holder, :batch, :state, :bits, :until)"),
                {
                    "key_id": key_id.bytes,
                    "side": side,
                    "holder": holder,
                    "batch": batch,
                    "state": state,
                    "bits": bits,
                    "until": until,
                },
            )
        (step,) = SCHEMA.upgrades
        assert step.to == SCHEMA.version
        step.apply(connection)
        yield connection
    engine.dispose()


def test_nothing_of_the_old_tables_stays(connection: Connection) -> None:
    found = inspect(connection)
    assert "copies_by_key" not in found.get_table_names()
    assert {index["name"] for index in found.get_indexes("copies")} == set()


def test_every_copy_is_there_with_its_state_and_bits(connection: Connection) -> None:
    columns = copies_table.c
    rows = connection.execute(
        select(columns.key_id, columns.side, columns.holder, columns.batch, columns.state, columns.bits, columns.until)
    )
    expected = {(key.bytes, *rest[:3], state, *rest[3:]) for (key, *rest), state in zip(HELD, STATES, strict=True)}
    assert {tuple(row) for row in rows} == expected


def test_what_was_held_is_fetched_once(connection: Connection) -> None:
    wanted = [KEYS[0], KEYS[1], KEYS[4]]
    assert copies.fetch(connection, BOB, ALICE, wanted, 100.0) == {KEYS[0]: b"s0", KEYS[1]: b"s1", KEYS[4]: b"s4"}
    with pytest.raises(copies.NotFound):
        copies.fetch(connection, BOB, ALICE, [KEYS[0]], 100.0)


def test_what_was_released_is_issued_once(connection: Connection) -> None:
    rows = connection.execute(select(copies_table).where(copies_table.c.state == KeyState.RELEASED)).all()
    stored = [Stored(UUID(bytes=row.key_id), row.until, row.batch, row.position) for row in rows]
    assert copies.issue(connection, ALICE, stored, 100.0) == {KEYS[0]: b"m0"}
    with pytest.raises(copies.MissingCopies):
        copies.issue(connection, ALICE, stored, 100.0)


def test_what_expired_unissued_is_still_to_be_withdrawn(connection: Connection) -> None:
    assert ends.unfetched(connection, 100.0) == {"b1": [KEYS[2]]}
    ends.withdrawn(connection, "b1", [KEYS[2]], 100.0)
    assert ends.unfetched(connection, 100.0) == {}


def test_what_lives_ends_and_goes_in_its_time(connection: Connection) -> None:
    assert ends.expire(connection, LIFE - 1) == 0
    assert ends.expire(connection, LIFE + 1) == 4
    assert ends.unfetched(connection, LIFE + 1) == {"b1": [KEYS[2], KEYS[0]]}
    ends.withdrawn(connection, "b1", [KEYS[0], KEYS[2]], LIFE + 1)
    for now in (LIFE + 1e5, LIFE + 2e5, LIFE + 3e5):
        while ends.purge(connection, now):
            pass
    assert connection.execute(select(copies_table)).all() == []
    assert connection.execute(select(parts)).all() == []
    assert connection.execute(select(batches)).all() == []
