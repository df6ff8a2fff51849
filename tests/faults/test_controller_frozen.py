"""A CKMS that freezes is found by the controller, and nothing goes over it until it is back."""

from __future__ import annotations

import signal
import time

import pytest

from controller.changes import Change
from keyhaul.transport.etsi014 import Client014
from tests.faults import oracle
from tests.faults.ground import Ground
from tests.faults.oracle import under_load
from tests.faults.steered import LEADER, carrier, settled, until
from tests.network.load import more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults-controller")]

FROZEN = "ckms-m"
UNHEARD = {"node-silent", "topology-disagrees", "statements-not-accepted", "statement-refused"}


async def test_a_frozen_node_is_found_and_left(steered: Ground, steered_clients: dict[str, Client014]) -> None:
    """The controller promises 5 s; how long it took is shown."""
    ground = steered
    async with (
        carrier(ground) as there,
        ground.thawed(FROZEN),
        under_load(ground, steered_clients, alarms=UNHEARD) as case,
    ):

        async def serves() -> bool:
            return len(await there.ways()) == 8

        async def told(kind: str) -> bool:
            events = ground.events(marks, [LEADER])
            return (kind, FROZEN) in {(event["event"], event.get("subject")) for event in events}

        await more(case.seen, 40)
        await until(serves, "all demands have paths")
        marks = ground.marks()
        frozen = time.monotonic()
        ground.send(FROZEN, signal.SIGSTOP)
        await until(lambda: told(Change.NODE_SILENT), "the controller knows")
        oracle.show("a frozen node is found by the controller", time.monotonic() - frozen)
        await more(case.seen, 200)
        case.over()
        ground.send(FROZEN, signal.SIGCONT)
        await until(lambda: told(Change.NODE_HEARD), "the controller hears it")
        await ground.serving()
        await until(serves, "all demands have paths and backups")
        await settled(there)
    assert case.seen.refused == 0
