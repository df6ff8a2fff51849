"""What is written comes back, on both engines; transactions leave all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from controller.planned import PlannedLink, PlannedNetwork, PlannedNode
from controller.promises import Hop, Promise
from controller.remembering import Batch
from controller.state import demands, events, installed, plans
from controller.state.counters import value
from controller.state.database import PURPOSE
from controller.state.installed import Statement
from controller.state.schema import COUNTERS, metadata
from controller.steering.effects import Note
from keyhaul.database.database import Database
from keyhaul.database.engines import engine_for, locate
from keyhaul.randomness import identifier

NETWORK = PlannedNetwork(
    (
        PlannedNode("ckms-9", access=False, jurisdiction="DE", place="Ulm", target="127.231.0.9:9339"),
        PlannedNode("ckms-8"),
    ),
    (
        PlannedLink(
            "8-9",
            "ckms-8",
            "ckms-9",
            rate=2**40,
            capacity=2**41,
            suites=frozenset({"otp", "hybrid"}),
            risk_groups=frozenset({"duct 7"}),
            km=51.25,
        ),
    ),
)


def test_the_migrations_make_the_tables_that_the_code_uses(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    assert database.transact(differences) == []
    assert {name: database.transact(lambda c, name=name: value(c, name)) for name in COUNTERS} == COUNTERS  # type: ignore[misc]


def test_events_of_the_first_release_stay_and_more_follow(
    database_url: str, tmp_path: Path, reopen: Callable[[], Database]
) -> None:
    engine = engine_for(locate(database_url, tmp_path, "test", ""))
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(PURPOSE.migrations))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for number in (1, 2):
            connection.execute(text(f"INSERT INTO events VALUES ({number}, 1, 'link-down', '8-9', '{{}}')"))
        connection.execute(text("UPDATE counters SET value = 2 WHERE name = 'event'"))
    engine.dispose()
    database = reopen()
    assert database.transact(lambda c: events.tell(c, "link-up", "8-9", {}, identifier())) == 3
    assert [one.kind for one in database.transact(lambda c: events.after(c, 0))] == [
        "link-down",
        "link-down",
        "link-up",
    ]


def test_a_plan_comes_back_in_its_order_and_the_same_one_is_no_new_version(reopen: Callable[[], Database]) -> None:
    database = reopen()
    assert database.transact(plans.load) is None
    assert database.transact(lambda c: plans.apply(c, NETWORK, "a" * 64)) == 1
    assert database.transact(lambda c: plans.apply(c, NETWORK, "a" * 64)) == 1
    bigger = replace(NETWORK, nodes=(*NETWORK.nodes, PlannedNode("ckms-16")))
    assert database.transact(lambda c: plans.apply(c, bigger, "b" * 64)) == 2
    database = reopen()
    assert database.transact(plans.load) == (2, bigger)
    assert database.transact(lambda c: plans.load(c, 1)) == (1, NETWORK)
    assert database.transact(lambda c: plans.load(c, 3)) is None


def test_only_the_last_versions_of_a_plan_are_kept(database: Database) -> None:
    for number in range(plans.KEPT + 2):
        database.transact(lambda c, number=number: plans.apply(c, NETWORK, f"{number:064}"))  # type: ignore[misc]
    assert database.transact(lambda c: plans.load(c, 2)) is None
    assert database.transact(lambda c: plans.load(c, 3)) == (3, NETWORK)


def test_a_quarantine_outlives_the_version_of_the_plan(database: Database) -> None:
    database.transact(lambda c: plans.quarantine(c, "ckms-9", "found open"))
    database.transact(lambda c: plans.quarantine(c, "ckms-9", "found open again"))
    database.transact(lambda c: plans.apply(c, NETWORK, "a" * 64))
    assert database.transact(plans.quarantined) == {"ckms-9": "found open again"}
    assert database.transact(lambda c: plans.release(c, "ckms-9"))
    assert not database.transact(lambda c: plans.release(c, "ckms-9"))
    assert database.transact(plans.quarantined) == {}


FIRST = Promise(
    "1" * 32,
    "ckms-2",
    "ckms-9",
    "gold",
    2_000,
    60.5,
    (
        (Hop("2-8", "ckms-2", 4_000), Hop("8-9", "ckms-8", 4_000)),
        (Hop("2-16", "ckms-2", 4_000), Hop("16-9", "ckms-16", 0)),
    ),
    {"maximum_hops": 7},
)
SECOND = Promise("2" * 32, "ckms-9", "ckms-8", "bronze", 0, 5.0, ((Hop("8-9", "ckms-9", 70),),))


def test_what_was_promised_adds_up_and_comes_back_to_the_links(reopen: Callable[[], Database]) -> None:
    database = reopen()
    for one in (FIRST, SECOND):
        database.transact(lambda c, one=one: demands.admit(c, one))  # type: ignore[misc]
    third = replace(FIRST, id="3" * 32, paths=FIRST.paths[:1])
    database.transact(lambda c: demands.admit(c, third))
    database = reopen()
    assert database.transact(demands.load) == [FIRST, SECOND, third]
    assert database.transact(demands.reserved) == {
        ("2-8", "ckms-2"): 8_000,
        ("8-9", "ckms-8"): 8_000,
        ("8-9", "ckms-9"): 70,
        ("2-16", "ckms-2"): 4_000,
        ("16-9", "ckms-16"): 0,
    }
    moved = replace(FIRST, paths=FIRST.paths[1:])
    database.transact(lambda c: demands.admit(c, moved))
    assert database.transact(demands.load)[0] == moved
    database.transact(lambda c: demands.end(c, [FIRST.id, third.id, "unknown"]))
    assert database.transact(demands.load) == [SECOND]
    assert database.transact(demands.reserved) == {("8-9", "ckms-9"): 70}


def test_statements_are_known_before_they_are_confirmed(reopen: Callable[[], Database]) -> None:
    database = reopen()
    told = [
        Statement(2**33 + number, 3, f"ckms-{number % 2}", "1" * 32, number // 2, b"body %d" % number, b"\x00\xff")
        for number in range(4)
    ]
    database.transact(lambda c: installed.record(c, told))
    database.transact(lambda c: installed.confirm(c, [told[0].serial, told[1].serial]))
    database = reopen()
    expected = [replace(one, installed=number < 2) for number, one in enumerate(told)]
    assert database.transact(installed.load) == expected
    assert database.transact(lambda c: installed.load(c, node="ckms-1")) == expected[1::2]
    assert database.transact(lambda c: installed.load(c, demand="2" * 32)) == []
    database.transact(lambda c: installed.forget(c, [one.serial for one in told[:3]]))
    assert database.transact(installed.load) == expected[3:]


def test_events_are_numbered_without_gaps_and_follow_a_snapshot(
    reopen: Callable[[], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = reopen()
    assert database.transact(lambda c: events.after(c, 0)) == []

    def fails(connection: Connection) -> None:
        events.tell(connection, "link-down", "8-9", {}, identifier())
        raise LookupError

    for number in range(1, 8):
        link, facts = f"link {number}", {"rate": number}
        told = database.transact(partial(events.tell, kind="up", subject=link, facts=facts, identity=identifier()))
        assert told == number
        with pytest.raises(LookupError):
            database.transact(fails)
    database = reopen()
    assert database.transact(events.position) == 7
    found = database.transact(lambda c: events.after(c, 3, 2))
    assert [(one.number, one.subject, one.facts) for one in found] == [
        (4, "link 4", {"rate": 4}),
        (5, "link 5", {"rate": 5}),
    ]
    assert found[0].at > 1_700_000_000
    assert database.transact(lambda c: events.after(c, 7)) == []
    with pytest.raises(events.Forgotten):
        database.transact(lambda c: events.after(c, 8))
    monkeypatch.setattr(events, "KEPT", 2)
    monkeypatch.setattr(events, "PORTION", 8)
    database.transact(lambda c: events.tell(c, "link-up", "8-9", {}, identifier()))
    assert [one.number for one in database.transact(lambda c: events.after(c, 6))] == [7, 8]
    with pytest.raises(events.Forgotten):
        database.transact(lambda c: events.after(c, 5))


def test_an_event_that_is_told_again_after_an_unknown_outcome_is_there_once(reopen: Callable[[], Database]) -> None:
    notes = (Note("link-down", "8-9"), Note("link-down", "8-9"), Note("node-silent", "ckms-9"))
    batch, again = Batch(notes), Batch(notes)
    for _ in range(3):
        reopen().transact(batch.write)
    database = reopen()
    assert [one.kind for one in database.transact(lambda c: events.after(c, 0))] == [one.kind for one in notes]
    database.transact(again.write)
    assert database.transact(events.position) == 6
