"""Links that are cut under load in networks with a controller: traffic goes around them, and returns once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.faults.ground import BACK, Ground
from tests.faults.oracle import under_load
from tests.faults.steered import (
    LEADER,
    UNASKED,
    Carrier,
    calm,
    carrier,
    ground_of,
    link,
    mended,
    primaries,
    settled,
    until,
)
from tests.laboratory import BERLIN_BONN
from tests.network.load import encryptors, more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults-controller")]

CUT = "8-9"
BEFORE = ("ckms-8", "ckms-9")
AROUND = "ckms-16"
DETOUR = "8-16"

STAYS = 20.0
"""Seconds for which traffic that has returned must stay where it is."""


@pytest.fixture(scope="module")
def berlin_bonn(need: object) -> Iterator[Ground]:
    """With full pools soon: while they fill, the better way from Erfurt to Eisenach is that over node 16."""
    text = BERLIN_BONN.read_text()
    assert "stock = 180.0" in text
    with ground_of(text.replace("stock = 180.0", "stock = 900.0"), 0) as ground:
        yield ground


async def firsts(there: Carrier, rank: int = 0) -> list[bool]:
    """Of the paths of a rank, whether they go around."""
    return [AROUND in nodes for (*_, own), nodes in (await there.ways()).items() if own == rank]


async def take_direct_link(ground: Ground, there: Carrier) -> None:
    """While pools fill at the start, either way may be the better one, and who has taken it stays there: it is not
    worth a move. Here both directions leave the way around, and have it as their backup.
    """

    async def direct() -> bool:
        return await firsts(there) == [False] * 2

    async def protected() -> bool:
        return await direct() and await firsts(there, 1) == [True] * 2

    async with mended(ground, DETOUR):
        await link("cut", DETOUR, ground)
        await until(direct, "paths take the direct link")
    await until(protected, "paths have the way around as their backup")


async def test_traffic_goes_around_a_cut_link_of_berlin_bonn_and_returns_once(berlin_bonn: Ground) -> None:
    ground = berlin_bonn
    async with (
        encryptors(ground.network) as clients,
        carrier(ground) as there,
        mended(ground, CUT),
        under_load(ground, clients, pairs=ground.pairs[:1]) as case,
    ):

        async def go(*, around: bool) -> bool:
            return await firsts(there) == [around] * 2

        async def forwarded() -> float:
            return await ground.metric(AROUND, "keyhaul_ckms_forwarded_total")

        async def goes_around() -> bool:
            return await forwarded() > relayed

        await more(case.seen, 40)
        await take_direct_link(ground, there)
        await settled(there)
        begun = ground.marks()
        await link("cut", CUT, ground)
        await until(lambda: go(around=True), "paths go around")
        relayed = await forwarded()
        await more(case.seen, 400)
        await until(goes_around, "keys go around")
        await link("restore", CUT, ground)
        await until(lambda: go(around=False), "paths take the direct link again", 4 * BACK)
        stays = time.monotonic() + STAYS
        while time.monotonic() < stays:
            await more(case.seen, 4)
            assert await go(around=False)
        taken = primaries(ground.events(begun, [LEADER]))
        assert [[AROUND in nodes for nodes in paths] for paths in taken.values()] == [[True, False]] * 2, taken
        await settled(there)
    assert case.seen.refused == 0


async def test_a_local_detour_carries_on_while_no_controller_is_there(berlin_bonn: Ground) -> None:
    """The node before the cut sends what still comes around it; nobody need tell the sender anything."""
    ground = berlin_bonn
    async with (
        encryptors(ground.network) as clients,
        carrier(ground) as there,
        ground.plainly(LEADER),
        mended(ground, CUT),
        under_load(ground, clients, pairs=ground.pairs[:1], alarms=UNASKED) as case,
    ):

        async def detoured() -> float:
            return sum([await ground.metric(node, "keyhaul_ckms_detoured_total") for node in BEFORE])

        async def goes_around() -> bool:
            return await detoured() > before

        async def have_detours() -> bool:
            held = await there.held()
            return all(any(row.get("detour") == AROUND for row in held[node].entries.values()) for node in BEFORE)

        await more(case.seen, 40)
        await take_direct_link(ground, there)
        await until(have_detours, "the nodes at both ends of the link have detours")
        await calm(there)
        ground.kill(LEADER)
        before, stated = await detoured(), await there.stated()
        await link("cut", CUT, ground)
        await until(goes_around, "keys go around")
        await more(case.seen, 400)
        assert await there.stated() == stated
        await link("restore", CUT, ground)
        case.over()
        ground.start(LEADER)
        await ground.serving()
        await settled(there)
    assert case.seen.refused == 0
