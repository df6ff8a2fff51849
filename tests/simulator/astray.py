"""Keys that were on their way to a UKMS when its AKMS heard of another store there.

What may have reached a process with the former store counts as delivered for good, since nobody can tell any more what
the master got (docs/architecture.md). What can have reached only the process that has the new one must not.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from tests.simulator.processes import AkmsProcess, SimulatedProcess

Reached = tuple[bytes, int]
"""The UKMS's process with which a session stood (empty: none), and which life of the AKMS that was."""


class Astray:
    """Looks on with the oracle."""

    def __init__(self) -> None:
        self._sent: dict[str, tuple[float, Reached]] = {}
        self._told: dict[str, str] = {}
        self._replaced: defaultdict[str, list[tuple[float, Reached]]] = defaultdict(list)

    def released(self, akms: SimulatedProcess, ukms: str, batch: str, now: float) -> None:
        """An AKMS is about to push a batch to its master's UKMS."""
        self._sent.setdefault(batch, (now, _reached(akms, ukms)))

    def look(self, akms: SimulatedProcess, now: float) -> None:
        """An AKMS's store changed."""
        for ukms, told in akms.disk.raw.execute("SELECT ukms, told FROM ukms_stores").fetchall():
            if self._told.setdefault(ukms, told) != told:
                self._replaced[ukms].append((now, _reached(akms, ukms)))
                self._told[ukms] = told

    def may_be(self, batch: str, ukms: str) -> bool:
        """Whether a batch may have been lost with a store without being handed out, and nobody can tell."""
        if batch not in self._sent:
            return False
        sent, reached = self._sent[batch]
        return any(at >= sent and (not reached[0] or reached != last) for at, last in self._replaced[ukms])


def _reached(akms: SimulatedProcess, ukms: str) -> Reached:
    return cast("AkmsProcess", akms).links.to(ukms).process, akms.lives
