"""A pool over pipes of any rate: used whole, short queues, next to nothing burned, and back soon when a hop is."""

from __future__ import annotations

import pytest

from keyhaul.config.services import PoolSection
from services.akms.cn_batch import CHECK_KEY_BYTES
from services.akms.cn_path import FIRST_BATCHES, FIRST_PATIENCE, CnPath
from services.akms.cn_pool import LOST_SECONDS
from tests.services.akms.lines import DISTANCE, TAG_BYTES, Line, line, steady, stocked

SMALL = 512
SLOWEST = 300 / 8
SLOW = 20_000 / 8
MEDIUM = 1e6 / 8
FAST = 100e6 / 8


def press(on: Line, until: float, waiting: int) -> None:
    """Somebody always waits for so many bytes more."""
    while on.now < until:
        while on.pool.waiting < waiting:
            on.ask(max(64, waiting // 8))
        on.run(on.now + 0.25)


def delivered(on: Line, begin: float, end: float) -> float:
    """Bytes of CN key per second that both ends could use."""
    return sum(size for _, at, size in on.arrived if begin <= at < end) / (end - begin)


def burned(on: Line, begin: float = 0.0) -> int:
    """Batches sent since then that are over and were never confirmed."""
    end = on.now - LOST_SECONDS
    return sum(begin <= at < end for at, _ in on.sent) - sum(begin <= made < end for made, _, _ in on.arrived)


@pytest.mark.parametrize(
    ("rate", "hops", "seconds", "efficiency"),
    [
        (SLOWEST, 1, 3600.0, 0.90),
        (SLOWEST, 2, 3600.0, 0.88),
        (SLOW, 1, 300.0, 0.93),
        (SLOW, 2, 300.0, 0.93),
        (SLOW, 12, 300.0, 0.88),
        (MEDIUM, 2, 200.0, 0.96),
        (FAST, 2, 4.0, 0.96),
    ],
)
def test_a_pipe_is_used_whole(rate: float, hops: int, seconds: float, efficiency: float) -> None:
    """What arrives of all that the pipe could carry, tags and checks included; the first part is the start."""
    path = line(*[steady(rate)] * hops)
    press(path, seconds, int(max(4_096, 2 * rate)))
    half = seconds / 2
    assert delivered(path, half, seconds) > efficiency * rate
    assert burned(path, half) == 0
    trips = sorted(at - made for made, at, _ in path.arrived if made >= half)
    idle = hops * ((SMALL + CHECK_KEY_BYTES + TAG_BYTES) / rate + DISTANCE)
    assert trips[len(trips) // 2] < 2 * idle + 1.5


@pytest.mark.parametrize("stock", [0, 4_000])
def test_the_start_over_a_slow_pipe_burns_nothing(stock: int) -> None:
    path = line(stocked(stock, SLOW), stocked(stock, SLOW))
    press(path, LOST_SECONDS + 60.0, 20_000)
    assert burned(path) == 0
    assert not path.wasted


def test_a_stock_that_comes_to_its_end_costs_little_of_it() -> None:
    """The window has grown to what the stock could carry: what is on its way then takes longer than nodes try."""
    path = line(stocked(60_000, SLOW), stocked(60_000, SLOW))
    press(path, LOST_SECONDS + 60.0, 20_000)
    assert sum(size for _, size in path.wasted) < 60_000 / 2
    assert delivered(path, 40.0, path.now) > 0.85 * SLOW


def test_a_rate_that_is_halved_burns_nothing() -> None:
    path = line(lambda now: SLOW if now < 60.0 else SLOW / 2)
    press(path, 60.0 + LOST_SECONDS + 60.0, 20_000)
    assert burned(path) == 0
    assert delivered(path, 90.0, path.now) > 0.9 * SLOW / 2


def test_fewer_batches_go_where_they_would_be_late() -> None:
    """Over twelve equal slow hops, a batch of a greater size would hold the pipe up; over one it saves tags."""
    sizes = {}
    for hops in (1, 12):
        path = line(*[steady(SLOW)] * hops)
        press(path, 120.0, 20_000)
        late = [size for at, size in path.sent if at > 60.0]
        sizes[hops] = sum(late) / len(late)
    assert sizes[12] == SMALL
    assert sizes[1] > 1.5 * SMALL


@pytest.mark.parametrize("rate", [SLOW, MEDIUM])
def test_a_hop_that_fails_and_says_so_is_back_at_once(rate: float) -> None:
    path = line(steady(rate), steady(rate))
    press(path, 20.0, int(2 * rate))
    path.losses = lambda now: 20.0 <= now < 23.0
    press(path, 23.0, int(2 * rate))
    press(path, 60.0, int(2 * rate))
    back = min(at for made, at, _ in path.arrived if made >= 23.0)
    assert back < 23.0 + 2.0 + 4 * SMALL / rate


def test_a_peer_that_dies_silently_is_noticed_by_its_connection_or_by_patience() -> None:
    """What its process had taken is gone, and nobody says so; the connection ends and comes back."""
    back = {}
    for told in (True, False):
        path = line(steady(MEDIUM), steady(MEDIUM), settings=PoolSection(minimum=0, maximum=0))
        press(path, 20.0, 4_096)
        path.silence = lambda now: now < 22.0
        press(path, 22.0, 4_096)
        if told:
            path.doubt()
        press(path, 40.0, 4_096)
        back[told] = min(at for _, at, _ in path.arrived if at >= 22.0) - 22.0
    assert back[True] < 0.3
    assert 0.9 < back[False] < 3.0


def test_patience_reckons_with_what_goes_before() -> None:
    path = CnPath([SMALL])
    for number in range(8):
        path.sent(str(number), SMALL, 10.0 * number)
        path.confirmed(str(number), 10.0 * number + 0.5)
    alone = path.patience
    for number in range(FIRST_BATCHES):
        path.sent(f"together {number}", SMALL, 100.0)
    assert path.patience == pytest.approx(alone - 0.5 + 0.5 * FIRST_BATCHES, rel=0.01)


def test_what_arrives_renews_the_patience_with_what_was_sent_after_it() -> None:
    path = CnPath([SMALL])
    for name, at in (("first", 0.0), ("second", 0.0), ("third", 2.0)):
        path.sent(name, SMALL, at)
    path.confirmed("second", 4.0)
    assert path.late(FIRST_PATIENCE) == []
    path.confirmed("third", 5.0)
    end = path.next_due()
    assert end > FIRST_PATIENCE
    assert path.late(end) == ["first"]


def test_a_trip_that_takes_no_time_is_a_short_one() -> None:
    """As the clock tells it, where it is coarse."""
    path = CnPath([SMALL, 8 * SMALL])
    for number, took in enumerate((0.0, 0.5, 0.0, 0.5)):
        path.sent(str(number), SMALL, float(number))
        path.confirmed(str(number), number + took)
        assert path.largest >= SMALL
        assert path.patience > 3.0
