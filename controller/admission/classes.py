"""Service classes: what each demands of the network, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from controller.paths.constraints import UNCONSTRAINED, Constraints


@dataclass(frozen=True, slots=True)
class ServiceClass:
    """What demands of a class get, and what they must find."""

    name: str
    suites: frozenset[str] | None
    """Each link must offer one of these; None: any will do."""
    quantum_only: bool
    reserves: bool
    """Whether the rate asked for is reserved on each hop, of primary and backup."""
    needs_backup: bool
    """Whether a demand is refused where there is no second path at all. What primary and backup share is told."""
    shares: int
    """Over how many paths without a common node each key is split; 1: it is not."""
    pool_floor: float
    """Share of a pool's capacity that is left to the classes of lower floor."""
    expansion: float
    """Bits of link key that a hop uses up for one bit relayed, authentication included."""
    precedence: int
    """When rates fall below what was promised, classes of lower precedence lose their reservations first."""
    detours: bool
    """Whether the nodes on its paths may send around a link that is down: not where the rate would have to be reserved
    on each detour as well, and never where another share may pass there."""

    def constraints(self, rate: int, further: Constraints = UNCONSTRAINED) -> Constraints:
        """What a path must keep to for a demand of `rate` (payload, bits per second), with an operator's `further`."""
        suites = further.suites if self.suites is None else self.suites
        if self.suites is not None and further.suites is not None:
            suites = self.suites & further.suites
        return replace(
            further,
            rate=max(further.rate, self.link_rate(rate)),
            pool_floor=max(further.pool_floor, self.pool_floor),
            quantum_only=further.quantum_only or self.quantum_only,
            suites=suites,
        )

    def link_rate(self, rate: int) -> int:
        """Link key that is reserved on each hop for a payload rate, bits per second."""
        return math.ceil(rate * self.expansion) if self.reserves else 0

    def payload(self, link_rate: int) -> int:
        """The greatest payload rate for which so much link key suffices, bits per second."""
        return int(link_rate / self.expansion) if self.reserves else 0


OTP = frozenset({"otp"})
AT_LEAST_AES = frozenset({"otp", "aes-256-gcm", "hybrid"})

CLASSES = {
    one.name: one
    for one in (
        ServiceClass(
            "gold",
            suites=OTP,
            quantum_only=True,
            reserves=True,
            needs_backup=True,
            shares=1,
            pool_floor=0.0,
            expansion=1.125,
            precedence=3,
            detours=False,
        ),
        ServiceClass(
            "split",
            suites=AT_LEAST_AES,
            quantum_only=True,
            reserves=True,
            needs_backup=False,
            shares=2,
            pool_floor=0.05,
            expansion=1.125,
            precedence=2,
            detours=False,
        ),
        ServiceClass(
            "silver",
            suites=AT_LEAST_AES,
            quantum_only=True,
            reserves=False,
            needs_backup=False,
            shares=1,
            pool_floor=0.1,
            expansion=0.0,
            precedence=1,
            detours=True,
        ),
        ServiceClass(
            "bronze",
            suites=None,
            quantum_only=False,
            reserves=False,
            needs_backup=False,
            shares=1,
            pool_floor=0.2,
            expansion=0.0,
            precedence=0,
            detours=True,
        ),
    )
}
"""`gold`: one-time pad on QKD links, reserved, with a backup. `silver`: AES-256-GCM or better on QKD links. `bronze`:
what there is. `split`: each key as exclusive or of shares over paths without a common node, reserved on each."""
