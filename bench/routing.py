"""How much each policy blocks, and what a key costs: `python -m bench.routing [--svg FILE] [--markdown FILE]`.

`bench.routing_model` says what is simulated. Each figure is the mean over ten seeds with the half-width of its 95 %
interval (Student's t); the seeds draw other link rates and other demands, the same for each policy.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import random
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.routing_model import CHOICES, STATIC, Outcome, Run, simulate
from bench.routing_plot import picture

NETS = ("nobel-germany", "germany50")
LOADS = (0.05, 0.10, 0.15, 0.20)
SEEDS = range(10)
T_95 = 2.262
"""Student's t for 95 % and nine degrees of freedom: ten seeds."""
RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and the half-width of its 95 % interval."""

    mean: float
    half: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Estimate:
        """From one sample of each seed."""
        return cls(statistics.fmean(samples), T_95 * statistics.stdev(samples) / math.sqrt(len(samples)))


def ratio_interval(part: Sequence[float], whole: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the ratio of two means over the same seeds: bootstrap, seeds drawn with replacement."""
    chance = random.Random(1)
    count = len(part)
    ratios = []
    for _ in range(RESAMPLES):
        drawn = [chance.randrange(count) for _ in range(count)]
        ratios.append(sum(part[index] for index in drawn) / sum(whole[index] for index in drawn))
    ratios.sort()
    return ratios[round(0.025 * RESAMPLES)], ratios[round(0.975 * RESAMPLES) - 1]


Key = tuple[str, float, str]
"""Network, load, policy."""


async def outcomes(runs: Iterable[Run]) -> dict[Run, Outcome]:
    """Simulate on all cores."""
    listed = list(runs)
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = await asyncio.gather(*(loop.run_in_executor(pool, simulate, run) for run in listed))
    return dict(zip(listed, found, strict=True))


def estimates(found: Mapping[Run, Outcome]) -> dict[Key, tuple[Estimate, Estimate]]:
    """Blocking and cost by network, load and policy."""
    grouped: dict[Key, list[Outcome]] = {}
    for run, outcome in found.items():
        grouped.setdefault((run.net, run.load, run.choice), []).append(outcome)
    return {
        key: (Estimate.of([one.blocked for one in several]), Estimate.of([one.cost for one in several]))
        for key, several in grouped.items()
    }


def table(found: Mapping[Key, tuple[Estimate, Estimate]]) -> str:
    """As Markdown."""
    lines = [
        "| network | load | policy | blocked, % | of static's | link key per key |",
        "|---|---|---|---|---|---|",
    ]
    for (net, load, choice), (blocked, cost) in sorted(
        found.items(), key=lambda item: (NETS.index(item[0][0]), item[0][1], CHOICES.index(item[0][2]))
    ):
        static = found[net, load, STATIC][0].mean
        share = f"{blocked.mean / static:.3f}" if static else "-"
        lines.append(
            f"| {net} | {load:.2f} | {choice} | {100 * blocked.mean:.2f} ± {100 * blocked.half:.2f} | {share} "
            f"| {cost.mean:.2f} ± {cost.half:.2f} |"
        )
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.routing", description="Compare routing policies.")
    parser.add_argument("--svg", type=Path, help="draw blocking over load into this file")
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    arguments = parser.parse_args()
    runs = [Run(net, load, choice, seed) for net in NETS for load in LOADS for choice in CHOICES for seed in SEEDS]
    found = estimates(asyncio.run(outcomes(runs)))
    text = table(found)
    print(text)
    if arguments.markdown is not None:
        arguments.markdown.write_text(text)
    if arguments.svg is not None:
        curves = {key: (blocked.mean, blocked.half) for key, (blocked, _) in found.items()}
        arguments.svg.write_text(picture(curves, NETS, LOADS, CHOICES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
