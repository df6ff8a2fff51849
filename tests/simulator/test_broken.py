"""Every deliberately broken variant is caught by the oracle within a few seeds."""

from __future__ import annotations

import pytest

from tests.simulator.broken import VARIANTS, Variant
from tests.simulator.run import simulate

SEEDS = range(1, 7)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_broken_variant_is_caught(variant: Variant) -> None:
    with variant.broken():
        for seed in SEEDS:
            report = simulate(seed, variant.settings(), stop_at=variant.rules)
            if {finding.rule for finding in report.findings} & variant.rules:
                return
    pytest.fail(f"{variant.name} was not caught by seeds {SEEDS.start} to {SEEDS.stop - 1}")
