"""What is wrong with a configuration file: every problem with its table and field."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    table: str
    """E.g. ``service`` or ``link 2.module``: the second table of the array `link`, its table `module`."""
    field: str
    """Empty where the whole table, or the whole file, is meant."""
    message: str
    """What is wrong, and what is allowed."""

    def __str__(self) -> str:
        place = f"[{self.table}] " if self.table else ""
        return f"{place}{self.field}: {self.message}" if self.field else f"{place}{self.message}"


class ConfigurationError(Exception):
    """A configuration file that cannot be used, with all that is wrong in it, one line each."""

    def __init__(self, file: Path, problems: list[Problem]) -> None:
        super().__init__("\n".join(f"{file}: {problem}" for problem in problems))
        self.file = file
        self.problems = problems
