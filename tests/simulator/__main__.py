"""`python -m tests.simulator`: runs seeds for as long as it is told, and says what they did and found."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from itertools import count
from pathlib import Path
from types import FrameType

from tests.simulator.run import Report, simulate
from tests.simulator.summary import Summary, told

PROGRESS = 30.0
"""Seconds from one line about the whole to the next, and from one writing of the summary to the next."""


def main() -> int:
    """Run seeds; the status is 1 where a rule did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=None, help="the first seed; default: by the clock")
    parser.add_argument("--seeds", type=int, default=None, help="how many, however long it takes")
    parser.add_argument("--jobs", type=int, default=1, help="processes that run seeds side by side")
    parser.add_argument("--json", type=Path, default=None, help="file for the summary")
    parser.add_argument("--static", action="store_true", help="no controllers: paths are those of the configuration")
    parser.add_argument("--quiet", action="store_true", help="no line for each seed")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of names would differ from run to run.
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulator", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    stop = _Stop(time.monotonic() + options.seconds if options.seeds is None else None)
    began = shown = time.monotonic()
    summary = Summary(options.seed if options.seed is not None else int(time.time()), static=options.static)
    seeds = iter(range(summary.first, summary.first + options.seeds)) if options.seeds else count(summary.first)
    for report in _reports(seeds, partial(simulate, static=options.static), stop, options.jobs):
        summary.add(report)
        if report.findings or not options.quiet:
            print("\n".join(told(report)), flush=True)
        if time.monotonic() - shown >= PROGRESS:
            shown = time.monotonic()
            print(summary.line(shown - began), flush=True)
            if options.json:
                summary.write(options.json)
    if options.json:
        summary.write(options.json)
    print(summary.table())
    return 1 if summary.findings else 0


class _Stop:
    """Whether no further seed begins: the time is up, or somebody asked for an end."""

    def __init__(self, end: float | None) -> None:
        self._end = end
        self._asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def __bool__(self) -> bool:
        return self._asked or (self._end is not None and time.monotonic() >= self._end)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True


def _reports(seeds: Iterator[int], simulated: Callable[[int], Report], stop: _Stop, jobs: int) -> Iterator[Report]:
    """One report after the other; the first seed is always run."""
    if jobs == 1:
        for seed in seeds:
            yield simulated(seed)
            if stop:
                return
        return
    with ProcessPoolExecutor(jobs) as pool:
        running: set[Future[Report]] = set()
        first = True
        while True:
            while len(running) < jobs and (first or not stop) and (following := next(seeds, None)) is not None:
                running.add(pool.submit(simulated, following))
                first = False
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


if __name__ == "__main__":
    sys.exit(main())
