"""A controller and its demands, as operators see them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from controller.northbound.interface import DemandAsKept, Leader, PathAsKept, PathState
from controller.steering.served import Served
from controller.telemetry import NodeState
from controller.topology import Discovery
from controller.watching import counted


def kept(demands: Iterable[Served], now: float) -> tuple[DemandAsKept, ...]:
    """What is known of demands.

    Args:
        demands: the core's; they are not kept.
        now: seconds, by the core's clock.
    """
    return tuple(_kept(served, now) for served in demands)


def health(leader: Leader, nodes: Sequence[NodeState], found: Discovery | None, demands: int) -> dict[str, Any]:
    """What the health page tells.

    Args:
        leader: who leads.
        nodes: how it stands with the telemetry of each planned CKMS.
        found: the network.
        demands: how many there are.
    """
    return {
        "leads": leader.leads,
        "epoch": leader.epoch,
        "leader": leader.address,
        "alone": leader.alone,
        "nodes": {"planned": len(nodes), "telling": sum(state is NodeState.TELLING for state in nodes)},
        "links": {} if found is None else {state.value: number for state, number in counted(found).items()},
        "disagreements": 0 if found is None else len(found.disagreements),
        "demands": demands,
    }


def _kept(served: Served, now: float) -> DemandAsKept:
    laying = served.laying.generation if served.laying else None
    paths = [
        PathAsKept(path, rank, state)
        for state, generation in ((PathState.INSTALLED, served.current), (PathState.INSTALLING, laying))
        if generation is not None
        for rank, path in enumerate(generation.paths)
    ]
    since = max(0.0, now - served.current.since) if served.current is not None else 0.0
    return DemandAsKept(served.demand, (*paths, *_draining(served, now)), since, served.refusal)


def _draining(served: Served, now: float) -> Iterator[PathAsKept]:
    """Former paths, the latest first; not those that are in force again, or still, under other labels."""
    told = {path.links for path in served.paths}
    for generation, until in reversed(served.drains):
        for rank, path in enumerate(generation.paths if until > now else ()):
            if path.links not in told:
                told.add(path.links)
                yield PathAsKept(path, rank, PathState.DRAINING)
