"""Why this path and why not the others: what path computation decided, put so that it can be printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import partial
from itertools import islice

from controller.paths.compute import NoPath, Pair, Path, best_paths, path_with_backup, paths_for_shares
from controller.paths.constraints import UNCONSTRAINED, Constraints, obstacle
from controller.paths.disjoint import disjoint
from controller.paths.k_shortest import k_shortest
from controller.paths.policies import WEIGHTS, Policy
from controller.paths.search import Arcs, nodes_of
from controller.view import NetworkView

PASSED_OVER = 4
"""How many of the paths that weigh more, and how many of those that are not allowed, are told of."""


class Verdict(StrEnum):
    """What became of a path that was looked at."""

    PRIMARY = "chosen"
    BACKUP = "chosen as backup"
    SHARE = "chosen for a share"
    HEAVIER = "weighs more"
    LESS_DISJOINT = "weighs less alone, but leaves a backup that shares or weighs more"
    NOT_ALLOWED = "breaks a constraint"
    ALONE = "is allowed, but has no other beside it"


@dataclass(frozen=True, slots=True)
class Hop:
    """A hop of a path as it was judged."""

    link: str
    origin: str
    to: str
    weight: int
    rate: int
    """New link key, bits per second."""
    spare: int
    """What of that is not reserved."""
    pool: int
    capacity: int
    """Bits."""
    obstacle: str | None
    """Why it cannot be in the path, if so."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A path that was looked at, and what decided about it."""

    verdict: Verdict
    nodes: tuple[str, ...]
    hops: tuple[Hop, ...]
    weight: int
    decisive: Hop | None
    """The first hop that is not allowed, or, of a path that is heavier, the heaviest that the chosen one does not have;
    none for one that is chosen, or has too many hops."""
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that was looked at for a demand."""

    source: str
    target: str
    policy: Policy
    version: int
    """Of the view."""
    chosen: Pair | None
    shares: tuple[Path, ...]
    """Of a demand whose keys are divided, what was chosen instead of a pair; none: there are too few paths."""
    candidates: tuple[Candidate, ...]
    """What was chosen, then what weighs more, then what is not allowed."""
    would_open: tuple[str, ...]
    """Where there is no path: constraints each of which alone is in the way, by name."""


def explain(
    view: NetworkView,
    source: str,
    target: str,
    constraints: Constraints = UNCONSTRAINED,
    policy: Policy = Policy.RESIDUAL,
    count: int = PASSED_OVER,
    shares: int = 1,
) -> Explanation:
    """Say which path is chosen, and of up to `count` others each, why they weigh more or what they break.

    With more than one of `shares`: which paths without a common node, or what all paths have in common.

    Raises:
        KeyError: one of the ends is no node of the view.
    """
    numbers = view.topology.node_number
    start, end = numbers[source], numbers[target]
    if shares > 1:
        divided, candidates = _shares(view, source, target, constraints, policy, count, shares)
        candidates += _barred(view, start, end, constraints, policy, count)
        serve = partial(paths_for_shares, view, source, target, shares, policy=policy)
        opening = () if divided else tuple(_would_open(view, start, end, constraints, shares, serve))
        return Explanation(source, target, policy, view.version, None, divided, tuple(candidates), opening)
    try:
        chosen: Pair | None = path_with_backup(view, source, target, constraints, policy)
    except NoPath:
        chosen = None
    candidates = []
    if chosen is not None:
        candidates.append(_described(view, start, chosen.primary.arcs, constraints, policy, Verdict.PRIMARY))
        if chosen.backup is not None:
            candidates.append(_described(view, start, chosen.backup.arcs, constraints, policy, Verdict.BACKUP))
        taken = {path.arcs for path in (chosen.primary, chosen.backup) if path is not None}
        allowed = best_paths(view, source, target, count + len(taken), constraints, policy)
        others = [path for path in allowed if path.arcs not in taken][:count]
        candidates += [_heavier(view, start, path, chosen.primary, constraints, policy) for path in others]
    candidates += _barred(view, start, end, constraints, policy, count)
    find = partial(path_with_backup, view, source, target, policy=policy)
    opening = () if chosen is not None else tuple(_would_open(view, start, end, constraints, 1, find))
    return Explanation(source, target, policy, view.version, chosen, (), tuple(candidates), opening)


def _shares(
    view: NetworkView, source: str, target: str, constraints: Constraints, policy: Policy, count: int, shares: int
) -> tuple[tuple[Path, ...], list[Candidate]]:
    """The paths of the shares, or the best that there are and which nodes all of them pass."""
    start = view.topology.node_number[source]
    try:
        chosen = tuple(paths_for_shares(view, source, target, shares, constraints, policy))
    except NoPath:
        allowed = best_paths(view, source, target, count, constraints, policy)
        common = [node for node in (allowed[0].nodes[1:-1] if allowed else ()) if _on_all(node, allowed)]
        told = f"{'all of these' if len(allowed) > 1 else 'it'} would pass {', '.join(common)}" if common else ""
        described = [_described(view, start, path.arcs, constraints, policy, Verdict.ALONE) for path in allowed]
        return (), [replace(one, reason=told or one.reason) for one in described]
    return chosen, [_described(view, start, path.arcs, constraints, policy, Verdict.SHARE) for path in chosen]


def _on_all(node: str, paths: Sequence[Path]) -> bool:
    return all(node in path.nodes for path in paths)


def _barred(
    view: NetworkView, start: int, end: int, constraints: Constraints, policy: Policy, count: int
) -> list[Candidate]:
    return [
        _described(view, start, arcs, constraints, policy, Verdict.NOT_ALLOWED)
        for arcs in _not_allowed(view, start, end, constraints, count)
    ]


def _hop(view: NetworkView, arc: int, constraints: Constraints, policy: Policy) -> Hop:
    link = view.links[arc >> 1]
    direction = link.direction(arc)
    origin, to = (link.b, link.a) if arc & 1 else (link.a, link.b)
    return Hop(
        link.id,
        origin,
        to,
        view.per_arc(WEIGHTS[policy])[arc],
        direction.rate,
        link.spare(direction),
        direction.pool,
        direction.capacity,
        obstacle(view, arc, constraints),
    )


def _described(
    view: NetworkView, start: int, arcs: Arcs, constraints: Constraints, policy: Policy, verdict: Verdict
) -> Candidate:
    hops = tuple(_hop(view, arc, constraints, policy) for arc in arcs)
    nodes = tuple(view.nodes[number].id for number in nodes_of(view.topology, start, arcs))
    weight = sum(hop.weight for hop in hops)
    barred = next((hop for hop in hops if hop.obstacle), None)
    if verdict is not Verdict.NOT_ALLOWED:
        return Candidate(verdict, nodes, hops, weight, None, f"weighs {weight} by {policy}")
    if barred is not None:
        reason = f"{barred.link} from {barred.origin}: {barred.obstacle}"
    else:
        reason = f"{len(hops)} hops, at most {constraints.maximum_hops} are allowed"
    return Candidate(verdict, nodes, hops, weight, barred, reason)


def _heavier(
    view: NetworkView, start: int, path: Path, primary: Path, constraints: Constraints, policy: Policy
) -> Candidate:
    described = _described(view, start, path.arcs, constraints, policy, Verdict.HEAVIER)
    own = [hop for hop, arc in zip(described.hops, path.arcs, strict=True) if arc not in primary.arcs]
    decisive = max(own, key=lambda hop: hop.weight)
    told = (
        f"{decisive.link} from {decisive.origin} weighs {decisive.weight}"
        f" ({decisive.spare} of {decisive.rate} bit/s to spare, pool {decisive.pool} of {decisive.capacity} bits)"
    )
    if path.weight < primary.weight:
        return replace(described, verdict=Verdict.LESS_DISJOINT, reason=f"weighs {path.weight} alone", decisive=None)
    return replace(described, decisive=decisive, reason=f"weighs {path.weight}, not {primary.weight}: {told}")


def _not_allowed(view: NetworkView, start: int, end: int, constraints: Constraints, count: int) -> Iterator[Arcs]:
    """Paths with few hops that the constraints bar."""
    anywhere = [1] * (2 * len(view.links))
    looked_at = islice(k_shortest(view.topology, anywhere, start, end), 8 * count)
    limit = constraints.maximum_hops
    barred = (
        arcs
        for arcs in looked_at
        if (limit is not None and len(arcs) > limit) or any(obstacle(view, arc, constraints) for arc in arcs)
    )
    return islice(barred, count)


def _would_open(
    view: NetworkView, start: int, end: int, constraints: Constraints, paths: int, find: Callable[..., object]
) -> Iterator[str]:
    """Constraints without which as many paths would be found as are wanted, each alone."""
    for field in fields(Constraints):
        free = getattr(UNCONSTRAINED, field.name)
        if getattr(constraints, field.name) != free:
            try:
                find(constraints=replace(constraints, **{field.name: free}))
            except NoPath:
                continue
            yield field.name
    if len(disjoint(view.topology, [1] * (2 * len(view.links)), start, end, paths)) < paths:
        yield "topology"
