"""What a node's messages come to, honest ones and others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.facts import PoolFacts
from controller.reported import MAXIMUM_LINKS, Reported, wanted
from controller.rhythm import SAMPLE, SAMPLES_A_SECOND, SILENCE, Rhythm
from keyhaul.agents.gnmi.models.ckms import NAME, TOP
from keyhaul.agents.gnmi.notices import Notice, Update, period
from keyhaul.agents.gnmi.paths import parse

LINKS = f"/{TOP}/links"
WHOLE: dict[str, Any] = {
    "neighbour": "ckms-9",
    "id": "8-9",
    "up": True,
    "enabled": True,
    "quantum": True,
    "suite": "otp",
    "suites": ["otp", "aes-256-gcm"],
    "rate": "2300",
    "qber": "0.021300",
    "latency": 480,
    "pool": [
        {"direction": "outgoing", "available": "18446744073709551615", "capacity": "9", "reserve": "1"},
        {"direction": "incoming", "available": "5", "capacity": "9", "reserve": "1", "bytes-in": "7"},
    ],
}


def place(neighbour: str = "ckms-9", below: str = "") -> str:
    return f"{LINKS}/link[neighbour={neighbour}]{below}"


def told(path: str, value: Any) -> Notice:
    if isinstance(value, dict):
        value = {f"{NAME}:{member}": one for member, one in value.items()}
    return Notice(1, (), (Update(parse(path), json.dumps(value).encode()),))


def gone(path: str) -> Notice:
    return Notice(1, (parse(path),), ())


SYNC = Notice(0, (), (), synced=True)


def test_a_link_is_read_as_rfc_7951_writes_it() -> None:
    reported = Reported("ckms-8")
    assert reported.take(told(place(), WHOLE), 5.0)
    received = reported.report.links["ckms-9"]
    facts = received.facts
    assert (received.at, facts.id, facts.neighbour, facts.rate, facts.qber) == (5.0, "8-9", "ckms-9", 2300, 0.0213)
    assert facts.suites == {"otp", "aes-256-gcm"}
    assert facts.outgoing == PoolFacts(2**64 - 1, 9, 1)
    assert facts.incoming == PoolFacts(5, 9, 1, bytes_in=7)


def test_a_node_tells_who_it_is_and_another_process_is_urgent() -> None:
    reported = Reported("ckms-8")
    assert not reported.take(told(f"/{TOP}/service-id", "ckms-8"), 1.0)
    assert not reported.take(told(f"/{TOP}/incarnation", "aa"), 1.0)
    assert not reported.take(told(f"/{TOP}/incarnation", "aa"), 2.0)
    assert reported.take(told(f"/{TOP}/incarnation", "bb"), 3.0)
    assert (reported.report.service_id, reported.report.incarnation, reported.report.at) == ("ckms-8", "bb", 3.0)


def test_a_link_that_goes_down_is_urgent_and_a_level_that_moves_is_not() -> None:
    reported = Reported("ckms-8")
    reported.take(told(place(), WHOLE), 1.0)
    assert not reported.take(told(place(), WHOLE | {"rate": "7"}), 2.0)
    assert reported.take(told(place(below="/up"), False), 2.5)
    assert not reported.report.links["ckms-9"].facts.up
    assert reported.report.links["ckms-9"].facts.rate == 7
    assert reported.take(told(place(below="/enabled"), False), 3.0)
    assert not reported.take(told(place(), WHOLE | {"up": False, "enabled": False}), 4.0)


def test_a_leaf_of_a_link_that_was_never_told_says_nothing() -> None:
    reported = Reported("ckms-8")
    assert not reported.take(told(place(below="/up"), True), 1.0)
    assert reported.report.links == {}


@pytest.mark.parametrize("path", [place(), LINKS, f"/{TOP}"])
def test_what_is_deleted_is_gone(path: str) -> None:
    reported = Reported("ckms-8")
    reported.take(told(place(), WHOLE), 1.0)
    assert reported.take(gone(path), 2.0)
    assert reported.report.links == {}
    assert not reported.take(gone(path), 3.0)


def test_a_leaf_that_is_deleted_takes_nothing_else_with_it() -> None:
    reported = Reported("ckms-8")
    reported.take(told(place(), WHOLE), 1.0)
    assert not reported.take(gone(place(below="/up")), 2.0)
    assert "ckms-9" in reported.report.links


def test_what_a_new_subscription_does_not_tell_is_gone_once_it_is_in_step() -> None:
    reported = Reported("ckms-8")
    for neighbour in ("ckms-9", "ckms-10"):
        reported.take(told(place(neighbour), WHOLE), 1.0)
    reported.begin(Rhythm())
    reported.take(told(place("ckms-10"), WHOLE), 2.0)
    assert set(reported.report.links) == {"ckms-9", "ckms-10"}
    assert reported.take(SYNC, 2.0)
    assert set(reported.report.links) == {"ckms-10"}
    assert not reported.take(SYNC, 3.0)


@pytest.mark.parametrize(
    "value",
    [
        [],
        "up",
        {"id": "8-9", "rate": "many"},
        {"id": "8-9", "up": "perhaps"},
        {"id": "8-9", "pool": [{"direction": "outgoing"}] * 5},
        {"id": "8-9", "suites": ["otp"] * 17},
        {"id": "x" * 129},
        {"up": True},
    ],
)
def test_nonsense_is_counted_and_changes_nothing(value: Any) -> None:
    reported = Reported("ckms-8")
    reported.take(told(place(), WHOLE), 1.0)
    before = reported.report.links
    reported.take(told(place(), value), 2.0)
    assert reported.unreadable == 1
    assert reported.report.links == before


def test_bytes_that_are_no_json_are_counted() -> None:
    reported = Reported("ckms-8")
    for value in (b"", b"\xff", b"[" * 100_000):
        reported.take(Notice(1, (), (Update(parse(place()), value),)), 1.0)
    assert reported.unreadable == 3
    assert reported.report.unreadable
    reported.begin(Rhythm())
    reported.take(told(place(), WHOLE), 2.0)
    assert not reported.report.unreadable


def test_a_node_cannot_make_more_than_so_much_be_kept() -> None:
    reported = Reported("ckms-8")
    for number in range(MAXIMUM_LINKS + 10):
        reported.take(told(place(f"ckms-{number}"), WHOLE), 1.0)
    assert len(reported.report.links) == MAXIMUM_LINKS
    assert reported.unreadable == 10


def test_a_report_does_not_change_any_more() -> None:
    reported = Reported("ckms-8")
    reported.take(told(place(), WHOLE), 1.0)
    report = reported.report
    reported.take(gone(place()), 2.0)
    assert set(report.links) == {"ckms-9"}


def test_many_nodes_are_asked_more_seldom_and_may_be_silent_for_longer() -> None:
    assert Rhythm.of(2) == Rhythm.of(SAMPLES_A_SECOND) == Rhythm(SAMPLE, SILENCE)
    for nodes in (1, 500, 1_001, 2_500, 10_000, 1_000_000):
        rhythm = Rhythm.of(nodes)
        assert nodes <= SAMPLES_A_SECOND * rhythm.sample * 1.001
        assert max(period(one) for one in wanted(rhythm)[:1]) <= rhythm.silence / 2, "one with no links is heard twice"
        assert 2 * rhythm.sample <= rhythm.silence


def test_what_is_told_holds_for_as_long_as_its_node_may_be_silent() -> None:
    reported = Reported("ckms-8")
    assert reported.report.fresh == SILENCE
    reported.begin(Rhythm.of(10_000))
    assert reported.report.fresh == Rhythm.of(10_000).silence > SILENCE
