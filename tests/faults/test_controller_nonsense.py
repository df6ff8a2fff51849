"""A node that reports nonsense: the controller keeps going, shows who disagrees, and others' paths do not suffer."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from pathlib import Path

import pytest

from keyhaul.transport.etsi014 import Client014
from tests.faults.ground import BACK, Circumstances, Ground
from tests.faults.oracle import under_load
from tests.faults.steered import LEADER, Carrier, carrier, link, mended, settled, until
from tests.laboratory import keyhaul
from tests.network.load import more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults-controller")]

LIAR = "ckms-m"
OTHERS = "a-d"
"""A link that the liar has nothing to do with."""

TOLD = {"topology-disagrees", "node-silent", "statements-not-accepted", "statement-refused"}
"""The last two: of a process that is another one when it is told."""


async def shown(ground: Ground) -> set[tuple[str, str]]:
    """What operators are shown that is not as planned: what, and where."""
    at = ("--network", ground.network.directory, "--json")
    done = await asyncio.to_thread(keyhaul, "topology", "disagreements", *at)
    return {(one["kind"], one["subject"]) for one in json.loads(done.stdout)["disagreements"]}


async def avoided(there: Carrier, *hop: str) -> bool:
    """Whether the first paths of class silver go both ways, and none of them over a node or from one to the other."""
    ways = await there.ways()
    firsts = [nodes for (_, _, name, rank), nodes in ways.items() if (name, rank) == ("silver", 0)]
    taken = {frozenset(pair) for nodes in firsts for pair in pairwise(nodes)}
    return len(firsts) == 2 and not any(pair.issuperset(hop) for pair in taken)


@pytest.mark.parametrize(
    ("nonsense", "kinds"),
    [
        ("figures", [{("absurd", "a-m"), ("absurd", "m-b")}]),
        ("neighbours", [{("neighbour", "a-m"), ("unplanned", "a-atlantis")}]),
        ("many", [{("unplanned", LIAR)}, {("silent", LIAR)}]),  # it may take its agent too long to say them
        ("types", [{("nonsense", LIAR)}]),
        ("enormous", [{("silent", LIAR)}]),
    ],
)
async def test_a_node_that_reports_nonsense_harms_nobody_else(
    steered: Ground, steered_clients: dict[str, Client014], nonsense: str, kinds: list[set[tuple[str, str]]]
) -> None:
    ground = steered
    program = (str(Path(__file__).with_name("liar.py")), nonsense)
    async with (
        carrier(ground) as there,
        ground.plainly(LIAR),
        mended(ground, OTHERS),
        under_load(ground, steered_clients, alarms=TOLD) as case,
    ):
        await more(case.seen, 40)
        controller = ground.pid(LEADER)
        ground.replace(LIAR, Circumstances(program=program))
        there.unasked.add(LIAR)  # what it says is not to be relied on, and some are too busy to say anything

        async def named() -> bool:
            found = await shown(ground)
            return any(one <= found for one in kinds)

        await until(named, f"{nonsense}: one of {kinds} is shown")
        if nonsense in ("types", "enormous"):
            await until(lambda: avoided(there, LIAR), "nothing goes over who cannot be understood")
        await link("cut", OTHERS, ground)
        await until(lambda: avoided(there, *(f"ckms-{node}" for node in OTHERS.split("-"))), "others' paths move")
        await more(case.seen, 200, BACK)
        await link("restore", OTHERS, ground)
        assert (ground.pid(LEADER), ground.code(LEADER)) == (controller, None)
        case.over()
        ground.replace(LIAR)
        await ground.serving()
        there.unasked.clear()

        async def agreed() -> bool:
            return not await shown(ground)

        await until(agreed, "all is as planned again")
        await settled(there)
    assert case.seen.refused == 0
