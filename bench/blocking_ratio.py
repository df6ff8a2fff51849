"""How much the default policy blocks, as a share of what static hop count does: germany50 at load 0.10, ten seeds.

`bench.routing_model` says what is simulated; `python -m bench.routing` compares all policies, loads and networks. The
ratio depends on how big a demand is, since links with less than its rate are no use to it: detail has it for demands of
half and of twice the rate as well.
"""

from __future__ import annotations

from typing import Any

from bench.figure import Figure
from bench.routing import SEEDS, estimates, outcomes, ratio_interval
from bench.routing_model import DEMANDS, RATE, STATIC, Run
from controller.paths.policies import Policy

NET, LOAD = "germany50", 0.10
RATES = (RATE // 2, RATE, 2 * RATE)
CHOICES = (STATIC, str(Policy.HOPS), str(Policy.WIDEST_SHORTEST), str(Policy.RESIDUAL))


async def measure() -> Figure:
    """Return the ratio of the two blocking probabilities."""
    found = await outcomes(Run(NET, LOAD, choice, seed, rate) for rate in RATES for choice in CHOICES for seed in SEEDS)
    detail: dict[str, Any] = {}
    ratios: dict[int, float] = {}
    for rate in RATES:
        kept = estimates({run: outcome for run, outcome in found.items() if run.rate == rate})
        ratios[rate] = kept[NET, LOAD, Policy.RESIDUAL][0].mean / kept[NET, LOAD, STATIC][0].mean
        of_residual, of_static = (
            [found[Run(NET, LOAD, choice, seed, rate)].blocked for seed in SEEDS]
            for choice in (str(Policy.RESIDUAL), STATIC)
        )
        interval = [round(end, 4) for end in ratio_interval(of_residual, of_static)]
        detail[f"demands_of_{rate}_bits_per_second"] = {
            "ratio": round(ratios[rate], 4),
            "ratio_interval_95": interval,
        } | {
            choice: {
                "blocked": round(blocked.mean, 4),
                "interval_95": round(blocked.half, 4),
                "link_key_per_key": round(cost.mean, 2),
            }
            for (_, _, choice), (blocked, cost) in kept.items()
        }
    return Figure(
        "blocking_ratio",
        ratios[RATE],
        "of static hop count's blocking",
        0.1,
        "lower",
        {"network": NET, "load": LOAD, "seeds": len(SEEDS), "demands_of_each_seed": DEMANDS} | detail,
    )
