from __future__ import annotations

import pytest

from services.qkdm.allotment import BASE, Allotment, Demand, Master

T, R = Master.TRANSMITTER, Master.RECEIVER


def served(
    levels: dict[Master, int], takes: dict[Master, int], *, refused: bool, blocks: int = 500
) -> dict[Master, int]:
    """Allot blocks of 16 keys; before each, every direction takes what it wants, or what is there."""
    allotment = Allotment(10_000)
    counters = {master: Demand() for master in Master}
    got = dict.fromkeys(Master, 0)
    for block in range(500):
        now = float(block)
        for master in Master:
            taken = min(levels[master], takes[master])
            levels[master] -= taken
            got[master] += taken
            short = refused and taken < takes[master]
            counters[master] = Demand(counters[master].given + taken, counters[master].refused + short)
            allotment.observe(master, counters[master], now)
        for master in allotment.allot(16, levels, now):
            levels[master] += 1
    return got


def test_without_demand_both_directions_fill_alike() -> None:
    levels = {T: 0, R: 0}
    served(levels, {T: 0, R: 0}, refused=False)
    assert levels[T] == levels[R] == 4_000


@pytest.mark.parametrize("busy", Master)
@pytest.mark.parametrize("refused", [True, False])
def test_traffic_in_one_direction_gets_nearly_the_whole_rate(busy: Master, refused: bool) -> None:
    got = served({T: 200, R: 200}, {busy: 16, busy.other: 0}, refused=refused)
    assert got[busy] > 0.97 * 500 * 16


def test_two_hungry_directions_share_fairly() -> None:
    got = served({T: 0, R: 0}, {T: 100, R: 100}, refused=True)
    assert got[T] == pytest.approx(got[R], rel=0.05)


def test_an_idle_direction_gets_a_base_all_the_same() -> None:
    levels = {T: 0, R: 0}
    served(levels, {T: 100, R: 0}, refused=True)
    assert levels[R] >= BASE


def test_a_full_direction_leaves_the_keys_to_the_other() -> None:
    allotment = Allotment(100)
    assert set(allotment.allot(50, {T: 100, R: 10}, 0.0)) == {R}
    assert set(allotment.allot(50, {T: 10, R: 100}, 0.0)) == {T}


def test_two_full_directions_alternate() -> None:
    assert Allotment(100).allot(4, {T: 100, R: 100}, 0.0) in ([T, R, T, R], [R, T, R, T])
