"""The local command that cuts, degrades and restores a link, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.qkdm.generator import Generator

ACTIONS = ("cut", "degrade", "restore")


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody wants done to a link."""

    action: str
    qber: float | None = None
    factor: float | None = None

    @classmethod
    def read(cls, arguments: dict[str, Any]) -> Change:
        """Read it from a command's arguments.

        Raises:
            ValueError: it is not one of `ACTIONS` with the numbers that belong to it.
        """
        action = arguments.get("action")
        if action not in ACTIONS:
            raise ValueError(f"action is one of {', '.join(ACTIONS)}")
        unknown = arguments.keys() - {"link", "action", "qber", "factor"}
        if unknown:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        qber = _ratio(arguments, "qber", 0.5)
        factor = _ratio(arguments, "factor", 1.0)
        if action == "degrade" and qber is None and factor is None:
            raise ValueError("degrade takes a qber, a factor, or both")
        if action != "degrade" and (qber is not None or factor is not None):
            raise ValueError(f"{action} takes neither qber nor factor")
        return cls(action, qber, factor)

    def apply(self, generator: Generator, now: float) -> None:
        """Do it.

        Raises:
            ValueError: the numbers are out of bounds, or the action is unknown.
        """
        match self.action:
            case "cut":
                generator.cut()
            case "degrade":
                generator.degrade(now, qber=self.qber, factor=self.factor)
            case "restore":
                generator.restore(now)
            case _:
                raise ValueError(f"action is one of {', '.join(ACTIONS)}")


def _ratio(arguments: dict[str, Any], name: str, most: float) -> float | None:
    value = arguments.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= most:
        raise ValueError(f"{name} is a number between 0 and {most:g}")
    return float(value)
