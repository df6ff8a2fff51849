from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.qkdm.generator import DRIFT_SECONDS, LONGEST_CATCH_UP, Burst, Characteristics, Generator, secret_fraction


def generator(seed: int = 1, **characteristics: float) -> Generator:
    made = Generator(Characteristics(**{"rate": 2_000.0, **characteristics}), random.Random(seed).randbytes)  # type: ignore[arg-type]
    made.resume(0.0)
    return made


def run(made: Generator, until: float) -> list[Burst]:
    bursts: list[Burst] = []
    while made.due is not None and made.due <= until:
        bursts += made.advance(made.due)
    return bursts


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    interval=st.floats(10.0, 60.0),
    variation=st.floats(0.0, 0.2),
    block=st.integers(256, 100_000),
)
def test_the_long_average_is_the_configured_rate(seed: int, interval: float, variation: float, block: int) -> None:
    rate = block / interval
    duration = 100 * DRIFT_SECONDS
    bursts = run(generator(seed, rate=rate, rate_deviation=variation * rate, block=block), duration)
    assert sum(burst.keys for burst in bursts) * 256 / duration == pytest.approx(rate, rel=0.1)


@given(block=st.integers(256, 10_000))
@settings(max_examples=20, deadline=None)
def test_bursts_complete_whole_keys_and_lose_no_bits(block: int) -> None:
    bursts = run(generator(block=block), 200 * block / 2_000)
    completed = 0
    for count, burst in enumerate(bursts, 1):
        completed += burst.keys
        assert completed == count * block // 256


def test_rate_and_qber_vary_around_their_means() -> None:
    bursts = run(generator(rate_deviation=200.0, qber=0.03, qber_deviation=0.005), 50_000.0)
    rates, qbers = [burst.rate for burst in bursts], [burst.qber for burst in bursts]
    assert len(set(rates)) > 1_000
    assert sum(rates) / len(rates) == pytest.approx(2_000, rel=0.05)
    assert sum(qbers) / len(qbers) == pytest.approx(0.03, rel=0.1)
    spread = (sum((rate - 2_000) ** 2 for rate in rates) / len(rates)) ** 0.5
    assert 120 < spread < 320


def test_blocks_beyond_the_qber_limit_give_no_key() -> None:
    bursts = run(generator(qber=0.10, qber_deviation=0.02), 20_000.0)
    assert any(burst.qber > 0.11 for burst in bursts)
    assert all((burst.keys > 0) == (burst.qber <= 0.11) for burst in bursts)


def test_fixed_rate_gives_a_key_at_a_time_evenly() -> None:
    bursts = run(generator(fixed_rate=True, rate_deviation=500.0, qber_deviation=0.01), 100.0)
    assert {burst.keys for burst in bursts} == {1}
    assert {burst.qber for burst in bursts} == {0.02}
    assert all(later.at - earlier.at == pytest.approx(0.128) for earlier, later in pairwise(bursts))


def test_a_cut_link_gives_nothing_until_restored() -> None:
    made = generator()
    made.cut()
    assert made.due is None
    assert made.advance(1_000.0) == []
    made.resume(1_000.0)
    assert made.due is None
    made.restore(2_000.0)
    assert run(made, 2_100.0)[0].at > 2_000.0


def test_a_degraded_link_gives_less() -> None:
    normal = sum(burst.keys for burst in run(generator(), 10_000.0))
    made = generator()
    made.degrade(0.0, factor=0.25)
    assert sum(burst.keys for burst in run(made, 10_000.0)) == pytest.approx(normal / 4, rel=0.02)
    made = generator()
    made.degrade(0.0, qber=0.06)
    share = secret_fraction(0.06) / secret_fraction(0.02)
    assert sum(burst.keys for burst in run(made, 10_000.0)) == pytest.approx(normal * share, rel=0.02)
    made.degrade(10_000.0, qber=0.12)
    blind = run(made, 11_000.0)
    assert blind
    assert sum(burst.keys for burst in blind) == 0
    assert made.rate == 0.0


@pytest.mark.parametrize("change", [{"qber": -0.1}, {"qber": 0.6}, {"factor": 1.1}, {"factor": -1.0}])
def test_impossible_degradations_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        generator().degrade(0.0, **change)


def test_nothing_comes_while_the_other_end_is_away() -> None:
    made = generator()
    made.pause()
    assert made.due is None
    made.restore(5.0)
    assert made.due is None


def test_what_a_stopped_process_missed_is_not_made_good() -> None:
    made = generator()
    assert made.due is not None
    assert sum(burst.keys for burst in made.advance(made.due + 1_000_000)) * 256 <= 2_000 * LONGEST_CATCH_UP


def test_no_secret_fraction_is_left_at_eleven_per_cent() -> None:
    assert secret_fraction(0.0) == 1.0
    assert secret_fraction(0.11) == pytest.approx(0.0, abs=1e-3)
    assert secret_fraction(0.2) == 0.0
    assert secret_fraction(0.5) == 0.0
