"""Demands with what became of them, as operators see them."""

from __future__ import annotations

from collections.abc import Iterable

from controller.northbound.interface import DemandAsKept, PathAsKept, PathState
from controller.steering.served import Served


def kept(demands: Iterable[Served], now: float) -> tuple[DemandAsKept, ...]:
    """What is known of demands.

    Args:
        demands: the core's; they are not kept.
        now: seconds, by the core's clock.
    """
    return tuple(_kept(served, now) for served in demands)


def _kept(served: Served, now: float) -> DemandAsKept:
    laying = served.laying.generation if served.laying else None
    paths = tuple(
        PathAsKept(path, rank, state)
        for state, generation in ((PathState.INSTALLED, served.current), (PathState.INSTALLING, laying))
        if generation is not None
        for rank, path in enumerate(generation.paths)
    )
    since = max(0.0, now - served.current.since) if served.current is not None else 0.0
    return DemandAsKept(served.demand, paths, since, served.refusal)
