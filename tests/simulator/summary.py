"""What many runs did and found, in all: added up, written down, and shown as a table."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulator.run import Report

SHOWN = 20
"""Findings of one seed that are shown; all are in the file."""


def replay(seed: int, *, static: bool) -> str:
    """The command that runs a seed again, step by step the same."""
    return f".venv/bin/python -m tests.simulator --seed {seed} --seeds 1" + " --static" * static


@dataclass
class Summary:
    """Totals over seeds."""

    first: int
    static: bool = False
    """Whether controllers were left out."""
    seeds: int = 0
    totals: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    alarms: Counter[str] = field(default_factory=Counter)
    simulated: float = 0.0
    cpu: float = 0.0
    findings: list[dict[str, Any]] = field(default_factory=list)

    def add(self, report: Report) -> None:
        """Count one run."""
        self.seeds += 1
        self.faults += report.faults
        self.alarms += report.alarms
        self.simulated += report.simulated
        self.cpu += report.seconds
        self.totals.update(
            steps=report.steps,
            messages=report.messages,
            commits=report.commits,
            lives=report.lives,
            steered=report.steered,
            delivered=report.delivered,
            fetched=report.fetched,
        )
        self.findings += [
            {
                "seed": report.seed,
                "rule": finding.rule,
                "text": finding.text,
                "simulated_s": round(finding.at, 3),
                "step": finding.step,
                "replay": replay(report.seed, static=self.static),
            }
            for finding in report.findings
        ]

    @property
    def failed(self) -> list[int]:
        """Seeds in which a rule did not hold."""
        return sorted({finding["seed"] for finding in self.findings})

    def content(self) -> dict[str, Any]:
        """As it is written down."""
        return {
            "seeds": {"first": self.first, "number": self.seeds},
            **self.totals,
            "simulated_s": round(self.simulated),
            "cpu_s": round(self.cpu, 1),
            "faults": {"total": self.faults.total(), **dict(sorted(self.faults.items()))},
            "alarms": dict(sorted(self.alarms.items())),
            "findings": self.findings,
        }

    def write(self, path: Path) -> None:
        """Write it to a file, in one piece."""
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.content(), indent=1) + "\n")
        os.replace(part, path)

    def line(self, elapsed: float) -> str:
        """Where it stands."""
        return (
            f"{elapsed:.0f} s: {self.seeds} seeds, {self.totals['steps']} steps, {self.faults.total()} faults, "
            f"{self.faults.total() / max(self.cpu, 0.001):.0f} a second of CPU, "
            f"{self.totals['delivered']} keys delivered, {len(self.failed)} seeds with findings"
        )

    def table(self) -> str:
        """Everything, to be read."""
        rows = [("seeds", f"{self.first} to {self.first + self.seeds - 1}"), ("in all", f"{self.seeds}")]
        rows += [(name, f"{number}") for name, number in self.totals.items()]
        rows += [("simulated", f"{self.simulated:.0f} s"), ("CPU", f"{self.cpu:.0f} s")]
        rows += [("faults", f"{self.faults.total()}")]
        rows += [(f"  {kind}", f"{number}") for kind, number in sorted(self.faults.items())]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value:>12}" for name, value in rows]
        lines.append("findings: " + (f"{len(self.findings)} in seeds {self.failed}" if self.findings else "none"))
        lines += [f"  {replay(seed, static=self.static)}" for seed in self.failed[:SHOWN]]
        return "\n".join(lines)


def told(report: Report) -> list[str]:
    """One run in a line, and what it found."""
    lines = [
        f"seed {report.seed}: {report.steps} steps, {report.messages} messages, {report.faults.total()} faults, "
        f"{report.delivered} keys delivered, {report.fetched} fetched, {report.simulated:.0f} s simulated in "
        f"{report.seconds:.1f} s of CPU"
    ]
    lines += [
        f"  {finding.rule} at {finding.at:.3f}, step {finding.step}: {finding.text}"
        for finding in report.findings[:SHOWN]
    ]
    if len(report.findings) > SHOWN:
        lines.append(f"  and {len(report.findings) - SHOWN} more")
    return lines
