"""Every deliberately broken variant is caught by the oracle within a few seeds."""

from __future__ import annotations

import pytest

from tests.simulator.broken import VARIANTS, Variant, lost_while_unsettled
from tests.simulator.broken_steering import STEERING_VARIANTS
from tests.simulator.run import simulate

SEEDS = range(1, 7)


@pytest.mark.parametrize("variant", [*VARIANTS, *STEERING_VARIANTS], ids=lambda variant: variant.name)
def test_a_broken_variant_is_caught(variant: Variant) -> None:
    with variant.broken():
        for seed in SEEDS:
            report = simulate(seed, variant.settings(), stop_at=variant.rules)
            if {finding.rule for finding in report.findings} & variant.rules:
                return
    pytest.fail(f"{variant.name} was not caught by seeds {SEEDS.start} to {SEEDS.stop - 1}")


def test_an_akms_that_lost_its_store_has_nothing_voided_that_it_cannot_ask_about() -> None:
    """Where a broken one does."""
    report = simulate(1, lost_while_unsettled())
    assert not report.findings
    assert report.faults["store lost"]
    assert report.fetched
