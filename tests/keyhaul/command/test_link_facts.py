"""What people are told of a link: names, units, and the state that matters."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from keyhaul.command.link_facts import describe_end, describe_module, state_of
from keyhaul.link.interface import DirectionStatus, LinkStatus

STATUS = LinkStatus(
    link="8-9",
    neighbour="ckms-9",
    state="up",
    suite="otp",
    suites=("otp",),
    connected=True,
    sessions_total=2,
    rejected_total=0,
    outgoing=DirectionStatus(65_536, 2_048, 12, 4_096, 0),
    incoming=DirectionStatus(1_024, 100, 3, 0, 640),
    floor="aes-256-gcm",
    configured=("aes-256-gcm", "otp"),
    chosen=True,
)

MODULE: dict[str, Any] = {
    "service": "qkdm-8",
    "link": "8-9",
    "kme": "kme-8",
    "peer_kme": "kme-9",
    "transmitter": True,
    "synchronised": False,
    "cut": True,
    "rate": 1200.0,
    "qber": 0.0171,
    "stored": {"enc_keys": 5, "dec_keys": 6},
    "capacity": {"enc_keys": 100, "dec_keys": 200},
    "generated": 1_000,
    "delivered": {"enc_keys": 11, "dec_keys": 12},
    "refused": 1,
    "dropped": {"overflow": 7, "unsynchronised": 8, "lost": 9},
}


def end(**changes: Any) -> dict[str, Any]:
    return {"service": "ckms-8", **asdict(replace(STATUS, **changes))}


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "up"),
        ({"connected": False}, "away"),
        ({"state": "down", "connected": True}, "down"),
        ({"state": "cut", "connected": False}, "cut"),
        ({"state": "disabled", "connected": False}, "disabled"),
    ],
)
def test_an_operators_word_and_a_fault_come_before_who_is_connected(changes: dict[str, Any], state: str) -> None:
    assert state_of(end(**changes)) == state


def test_an_end_is_told_in_names_and_units() -> None:
    told = dict(describe_end(end()))
    assert told["neighbour"] == "ckms-9, connected"
    assert told["accepted, best first"] == "otp (set at run time; configured: aes-256-gcm, otp)"
    assert told["weakest accepted"] == "aes-256-gcm"
    assert told["pad for payload"] == "64 KiB out, 1.0 KiB in"
    assert told["pad burned"] == "0 B out, 640 B in, since the start"
    assert dict(describe_end(end(suite="", chosen=False, suites=("otp",))))["accepted, best first"] == "otp"


def test_nothing_that_a_service_tells_of_an_end_or_module_is_left_out() -> None:
    text = " ".join(value for _, value in describe_module(MODULE))
    for number in (
        "1200 bit/s",
        "1.71 %",
        "5 of at most 100",
        "6 of at most 200",
        "1000",
        "11",
        "12",
        "7",
        "8 that",
        "9",
    ):
        assert number in text
    labels = [label for label, _ in (*describe_end(end()), *describe_module(MODULE))]
    assert not [label for label in labels if "_" in label.replace("enc_keys", "").replace("dec_keys", "")]
