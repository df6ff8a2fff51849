"""A user cannot tell by the clock whether an SAE does not exist or only does not share keys with it.

What this can show: that the two kinds of refusal take no different ways through UKMS, AKMS and AAA (another query, a
further hop, an early end), each of which costs tenths of a millisecond or more. What it cannot show: differences far
below the noise of a shared machine, such as a row more in a page of the database, which an attacker with many thousand
samples on a quiet path might still measure. The requests of both kinds are mixed at random, so that load meets both.
"""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path

import pytest

from tests.privacy import scenario
from tests.privacy.conftest import Run
from tests.privacy.network import running
from tests.privacy.statistic import compare

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("privacy"), pytest.mark.timeout(600)]


@pytest.mark.parametrize("asked", ["first", "again"])
def test_unknown_and_forbidden_slaves_take_the_same_time(honest: Run, asked: str) -> None:
    assert honest.lookups is not None
    times: dict[str, list[float]] = getattr(honest.lookups, asked)
    assert len(times["unknown"]) == len(times["forbidden"]) == 120
    comparison = compare(times["unknown"], times["forbidden"])
    assert not comparison.apart, comparison


def test_the_answers_are_the_same_to_the_byte(honest: Run) -> None:
    assert honest.lookups is not None
    assert len(honest.lookups.answers) == 1


def test_a_difference_of_a_lookup_more_would_be_found(honest: Run) -> None:
    """The same measurement, with what one of the two would cost if only it were asked of AAA."""
    assert honest.lookups is not None
    assert compare(honest.lookups.first["unknown"], honest.lookups.again["forbidden"]).apart


@pytest.mark.long
def test_unknown_and_forbidden_slaves_many_times(tmp_path: Path) -> None:
    with running(tmp_path / "n") as town:
        measured = asyncio.run(scenario.lookups(town, 12, seed=5))
    for times in (measured.first, measured.again):
        medians = {kind: statistics.median(values) for kind, values in times.items()}
        comparison = compare(times["unknown"], times["forbidden"])
        print({kind: f"{1000 * value:.3f} ms" for kind, value in medians.items()}, comparison)
        assert abs(comparison.share - 0.5) < 0.06, comparison
