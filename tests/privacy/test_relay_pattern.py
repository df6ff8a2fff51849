"""What a carrier node in the middle sees of users: batches of a few sizes, at times that are not those of requests.

The residue, which these tests bound and do not deny: a cold or drained pool relays at once for whoever waits; the rate
of refills follows that of use, and the class gold uses as many CN bits as keys, so that its refills tell how much is
asked for. The statistics of long runs are those of `tests/services/akms/test_cn_blindness.py`.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from keyhaul.config.services import PoolSection
from services.akms.cn_batch import CHECK_KEY_BYTES
from tests.privacy import scenario
from tests.privacy.conftest import Run
from tests.privacy.evidence import Evidence
from tests.privacy.network import ALONE, collect, running
from tests.privacy.statistic import compare, correlation

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("privacy"), pytest.mark.timeout(600)]

FEW = 10
"""Fewer relays than this have no pattern."""


def relays(evidence: Evidence, pattern: list[float]) -> tuple[list[float], set[int]]:
    """When batches came through the middle node while a user asked, and the sizes of all that ever came."""
    batches = [
        (record.at, len(record.data))
        for record in evidence.taps[ALONE]
        if record.kind == "secret" and record.connection == "relay.forward"
    ]
    return [at for at, _ in batches if pattern[0] <= at <= pattern[-1] + 1], {size for _, size in batches}


def follow(pattern: list[float], times: list[float]) -> bool:
    """Whether the relays show when the user asked: by numbers in slots, or by the time since the last request."""
    if len(times) < FEW:
        return False
    generator = random.Random(7)
    others = [generator.uniform(pattern[0], pattern[-1] + 1) for _ in range(500)]
    after, strangers = (
        [at - max(asked for asked in pattern if asked <= at) for at in each] for each in (times, others)
    )
    return correlation(pattern, times, pattern[0], pattern[-1] + 1) > 0.4 or compare(after, strangers).apart


def test_batches_have_a_few_fixed_sizes(honest: Run) -> None:
    _, sizes = relays(honest.evidence, honest.pattern)
    assert sizes
    assert sizes <= {CHECK_KEY_BYTES + size for size in PoolSection().batches}


def test_relays_do_not_follow_requests_once_pools_are_warm(honest: Run) -> None:
    times, _ = relays(honest.evidence, honest.pattern)
    assert len(honest.pattern) >= 40
    assert len(times) <= len(honest.pattern) / 8
    assert not follow(honest.pattern, times)


def test_relays_that_follow_requests_are_noticed(leaking: Run) -> None:
    """The run of leaking services has buffers and pools turned off: there the carrier sees each request."""
    times, _ = relays(leaking.evidence, leaking.pattern)
    assert len(times) >= max(FEW, len(leaking.pattern) // 3)
    assert follow(leaking.pattern, times)


@pytest.mark.long
def test_relays_of_many_requests_without_buffers(tmp_path: Path) -> None:
    """Pools alone, every request asked of the AKMS: how far relays then show requests."""
    with running(tmp_path / "n", changes=((r"\[sae\]\n", "[buffer]\nmaximum = 0\n\n[sae]\n"),)) as town:
        asyncio.run(scenario.silver_pattern(town, 3.0, seed=6))
        pattern = asyncio.run(scenario.silver_pattern(town, 60.0, seed=7))
    times, sizes = relays(collect(town), pattern)
    soon = sum(any(0 <= at - asked < 0.05 for asked in pattern) for at in times)
    value = correlation(pattern, times, pattern[0], pattern[-1] + 1)
    print(f"{len(pattern)} requests, {len(times)} relays of {sizes}, {soon} within 50 ms of a request, r = {value:.2f}")
    assert len(times) <= len(pattern) / 8
    assert sizes <= {CHECK_KEY_BYTES + size for size in PoolSection().batches}
    assert not follow(pattern, times)
