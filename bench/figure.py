"""One measured figure, as it is printed."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its unit and budget, and the detail that lets a reader check it."""

    name: str
    value: float
    unit: str
    budget: float | None
    """None: nothing is promised."""
    better: Literal["lower", "higher"]
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether the value is within the budget."""
        if self.budget is None:
            return True
        return self.value <= self.budget if self.better == "lower" else self.value >= self.budget

    def line(self) -> str:
        """The figure as one line of JSON."""
        head = {
            "name": self.name,
            "value": round(self.value, 3),
            "unit": self.unit,
            "budget": self.budget,
            "better": self.better,
        }
        return json.dumps(head | self.detail | {"met": self.met, "machine": machine()})


def machine() -> str:
    """What the figure was measured on."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def spread(samples_ms: Sequence[float]) -> dict[str, float]:
    """Minimum, median, 99th percentile and maximum of samples in milliseconds."""
    ordered = sorted(samples_ms)
    return {
        "samples": len(ordered),
        "minimum": round(ordered[0], 3),
        "median": round(statistics.median(ordered), 3),
        "p99": round(ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))], 3),
        "maximum": round(ordered[-1], 3),
    }
