"""`python -m tests.simulator`: runs seeds for as long as it is told, and prints what they did and found."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter

from tests.simulator.run import Report, simulate


def main() -> int:
    """Run seeds one after the other; the status is 1 where a rule did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on; 0: one seed")
    parser.add_argument("--seed", type=int, default=None, help="the first seed; default: by the clock")
    parser.add_argument("--quiet", action="store_true", help="only the summary and what was found")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of names would differ from run to run.
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulator", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    first = options.seed if options.seed is not None else int(time.time())
    end = time.monotonic() + options.seconds
    seeds = 0
    totals: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    failed: list[int] = []
    while True:
        report = simulate(first + seeds)
        seeds += 1
        faults += report.faults
        totals.update(steps=report.steps, messages=report.messages, commits=report.commits)
        totals.update(delivered=report.delivered, fetched=report.fetched, simulated=int(report.simulated))
        if report.findings:
            failed.append(report.seed)
        if not options.quiet or report.findings:
            _tell(report)
        if time.monotonic() >= end:
            break
    print(f"seeds {first} to {first + seeds - 1}: {seeds}; " + ", ".join(f"{k} {v}" for k, v in totals.items()))
    print(f"faults {faults.total()}: " + ", ".join(f"{kind} {count}" for kind, count in sorted(faults.items())))
    print(f"seeds with findings: {failed or 'none'}")
    return 1 if failed else 0


def _tell(report: Report) -> None:
    print(
        f"seed {report.seed}: {report.steps} steps, {report.messages} messages, {report.faults.total()} faults, "
        f"{report.delivered} keys delivered, {report.fetched} fetched, {report.simulated:.0f} s simulated in "
        f"{report.seconds:.1f} s",
        flush=True,
    )
    for finding in report.findings[:20]:
        print(f"  {finding.rule} at {finding.at:.3f}: {finding.text}", flush=True)
    if len(report.findings) > 20:
        print(f"  and {len(report.findings) - 20} more")


if __name__ == "__main__":
    sys.exit(main())
