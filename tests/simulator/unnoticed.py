"""Stores of UKMSs that were put back to an older state of which their AKMS had not been told enough to notice.

What was handed out between the copy and the fall may be handed out again then (docs/security.md says so).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulator.processes import SimulatedProcess


class Unnoticed:
    """Looks on with the oracle."""

    def __init__(self) -> None:
        self._spans: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)

    def put_back(self, ukms: SimulatedProcess, akms: SimulatedProcess) -> None:
        """A store was put back: its AKMS notices only if it durably knows a later generation."""
        name, copy = ukms.name.id, ukms.disk.put_back_to[-1]
        query = "SELECT told, generation FROM ukms_stores WHERE ukms = ?"
        told = akms.disk.raw.execute(query, (name,)).fetchone()
        if told is None or (told[0] == copy.store_id and told[1] <= copy.generation):
            self._spans[name].append((copy.made, ukms.disk.put_back_at[-1]))

    def may_come_twice(self, ukms: str, first: float) -> bool:
        """Whether a key that was handed out at some time may be handed out again."""
        return any(made <= first <= fell for made, fell in self._spans[ukms])
