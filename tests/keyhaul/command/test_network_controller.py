"""Laid-out networks with controllers, as real processes: they come up whole, keys flow, a new plan is followed, and of
two controllers one leads.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyhaul.command.init import initialise
from keyhaul.command.laboratory import probe
from tests.laboratory import SMALL, keyhaul, with_controller
from tests.postgresql import PostgreSQL

STEERED = with_controller(SMALL.read_text())
LOOPBACK = "127.231.77.0"
PAIR_LOOPBACK = "127.231.78.0"

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("command-network")]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory whose path leaves room for the names of Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="kn-", dir="/tmp") as place:
        yield Path(place)


def lay_out(scratch: Path, text: str, loopback: str = LOOPBACK) -> Path:
    (scratch / "small.toml").write_text(text)
    initialise(scratch / "small.toml", scratch / "n", loopback=loopback)
    return scratch / "n"


def health(number: int = 100, loopback: str = LOOPBACK) -> dict[str, Any]:
    facts = probe.health(f"{loopback.removesuffix('.0')}.{number}:9448")
    assert facts is not None
    return facts


def states(directory: Path) -> dict[str, dict[str, Any]]:
    found = json.loads(keyhaul("network", "status", directory, "--json").stdout)["services"]
    return {each["id"]: each for each in found}


def until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_comes_up_serves_keys_over_installed_paths_and_follows_a_new_plan(scratch: Path) -> None:
    net = lay_out(scratch, STEERED)
    keyhaul("network", "up", net, "--detach", "--timeout", "100")
    try:
        facts = health()
        assert facts["leads"]
        assert facts["nodes"] == {"planned": 4, "telling": 4}
        keyhaul("sae", "get-key", "first-east-1", "--network", net, "--as", "first-west-1")
        until(lambda: health()["demands"] > 0)
        services = states(net)
        assert {each["state"] for each in services.values()} == {"serving"}
        assert services["controller-dc"]["links"] == 4
        until(lambda: probe.links(health()) == (4, 4))
        pid = services["controller-dc"]["pid"]

        text = STEERED.replace('a = "d"\nb = "b"', 'a = "d"\nb = "b"\nrisk_groups = ["bridge"]')
        assert text != STEERED
        (scratch / "small.toml").write_text(text)
        keyhaul(
            *("network", "plan", scratch / "small.toml", "--loopback", LOOPBACK),
            *("--out", net / "nodes/dc/controller/plan.json"),
        )
        log = net / "logs/controller-dc.log"
        until(lambda: "the plan changed" in log.read_text())
        assert states(net)["controller-dc"]["pid"] == pid
    finally:
        keyhaul("network", "down", net)


def test_of_two_controllers_one_leads_and_the_other_follows_when_it_is_frozen(
    scratch: Path, postgresql: PostgreSQL
) -> None:
    spare = '[[node]]\nname = "spare"\nnumber = 101\nroles = ["controller"]\n\n[[link]]'
    shared = f'[controller]\ndatabase = "{postgresql.database()}"\n\n[modules]'
    net = lay_out(scratch, STEERED.replace("[[link]]", spare, 1).replace("[modules]", shared), PAIR_LOOPBACK)
    keyhaul("network", "up", net, "--detach", "--timeout", "100")
    frozen = None
    try:
        until(lambda: health(100, PAIR_LOOPBACK)["leads"] or health(101, PAIR_LOOPBACK)["leads"])
        first, second = (100, 101) if health(100, PAIR_LOOPBACK)["leads"] else (101, 100)
        assert not health(second, PAIR_LOOPBACK)["leads"]
        assert health(second, PAIR_LOOPBACK)["nodes"] == {"planned": 4, "telling": 4}
        services = states(net)
        frozen = services["controller-dc" if first == 100 else "controller-spare"]["pid"]
        epoch = health(first, PAIR_LOOPBACK)["epoch"]
        os.kill(frozen, signal.SIGSTOP)
        until(lambda: health(second, PAIR_LOOPBACK)["leads"])
        assert health(second, PAIR_LOOPBACK)["epoch"] > epoch
        keyhaul("sae", "get-key", "first-east-1", "--network", net, "--as", "first-west-1")
        until(lambda: health(second, PAIR_LOOPBACK)["demands"] > 0)
        os.kill(frozen, signal.SIGCONT)
        frozen = None
        until(lambda: not health(first, PAIR_LOOPBACK)["leads"])
        assert health(second, PAIR_LOOPBACK)["leads"]
    finally:
        if frozen is not None:
            os.kill(frozen, signal.SIGCONT)
        keyhaul("network", "down", net)
