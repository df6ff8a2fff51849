"""What a path costs: the policies that weigh arcs."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum

from controller.view import Direction, Link


class Policy(StrEnum):
    """How to choose among the paths that keep to the constraints."""

    HOPS = "hops"
    """Fewest hops."""
    WIDEST_SHORTEST = "widest-shortest"
    """Fewest hops; of those, the one whose scarcest hop has most rate to spare."""
    RESIDUAL = "residual"
    """Least key material where it is scarce: see `residual`."""


def one_hop(link: Link, direction: Direction) -> int:
    """Each hop weighs the same."""
    return 1


def spare(link: Link, direction: Direction) -> int:
    """How wide an arc is: what of its rate is to spare."""
    return link.spare(direction)


RATE_TAKEN = 2.0
POOL_USED = 4.0
"""How strongly a link's weight grows, exponentially, as its rate is promised away or its pool runs dry."""

UNIT = 1 << 20
HEAVIEST = 1 << 30


def residual(link: Link, direction: Direction) -> int:
    """Weigh an arc by how scarce its key material is.

    The price of a bit is 1 / sqrt(rate) * exp(2 * taken + 4 * used): `taken` is the share of the rate that is
    reserved, `used` the share of the pool that is gone. That a price exponential in the load keeps blocking low
    whatever demands come is a result on on-line routing (B. Awerbuch, Y. Azar, S. Plotkin, FOCS 1993, 32). The root
    prefers fast links without detours over everything slow; it has no scale, so that rates of bits or of megabits
    per second need no other constants. That of the rate blocked least of nine that were compared in the model of
    `bench routing`, and it is flat about there; pools stay full in that model, so that the pool's is judgement.
    """
    rate = max(1, direction.rate)
    taken = 1 - max(0, link.spare(direction)) / rate
    used = 1 - min(1.0, direction.pool / direction.capacity) if direction.capacity else 0.0
    price = UNIT / math.sqrt(rate) * math.exp(RATE_TAKEN * taken + POOL_USED * used)
    return max(1, min(HEAVIEST, round(price)))


WEIGHTS: dict[Policy, Callable[[Link, Direction], int]] = {
    Policy.HOPS: one_hop,
    Policy.WIDEST_SHORTEST: one_hop,
    Policy.RESIDUAL: residual,
}
"""By what each policy weighs arcs; the least sum is best, with what `widest-shortest` adds to it."""
