"""Paths between two CKMSs: the entry to path computation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from controller.paths.constraints import UNCONSTRAINED, Constraints, usable_weights
from controller.paths.disjoint import disjoint
from controller.paths.diverse import Overlap, diverse_pair, overlap
from controller.paths.k_shortest import k_shortest
from controller.paths.policies import WEIGHTS, Policy, spare
from controller.paths.search import Arcs, nodes_of, shortest_within, weight_of
from controller.view import NetworkView


class NoPath(Exception):
    """No path keeps to the constraints."""


class TooFewPaths(NoPath):
    """There are fewer paths without a node between the ends in common than were asked for."""

    def __init__(self, found: int, wanted: int) -> None:
        super().__init__(f"{found} of {wanted} paths that share no node")
        self.found = found
        self.wanted = wanted


@dataclass(frozen=True, slots=True)
class Path:
    """A loop-free path, from the CKMS that a key is handed in at to the one that it is for."""

    nodes: tuple[str, ...]
    """Service ids, ends included."""
    links: tuple[str, ...]
    arcs: Arcs
    """The links with their directions, by the view's numbers: good as long as the topology is the same."""
    weight: int
    """What it weighs by the policy that chose it."""

    @property
    def hops(self) -> int:
        """How many links it has."""
        return len(self.links)


@dataclass(frozen=True, slots=True)
class Pair:
    """A path and its backup."""

    primary: Path
    backup: Path | None
    """None where there is no other path at all."""
    shared: Overlap
    """What both share between the ends: what must not fail."""


def best_path(
    view: NetworkView,
    source: str,
    target: str,
    constraints: Constraints = UNCONSTRAINED,
    policy: Policy = Policy.RESIDUAL,
) -> Path:
    """The best path by a policy.

    Raises:
        NoPath: none keeps to the constraints.
    """
    request = _Request(view, source, target, constraints, policy)

    def solve(weights: Sequence[int]) -> list[Arcs]:
        arcs = shortest_within(view.topology, weights, request.start, request.end, constraints.maximum_hops)
        return [] if arcs is None else [arcs]

    return request.path(request.solved(solve)[0])


def path_with_backup(
    view: NetworkView,
    source: str,
    target: str,
    constraints: Constraints = UNCONSTRAINED,
    policy: Policy = Policy.RESIDUAL,
) -> Pair:
    """Two paths that share as few links as possible, then as few risk groups, then as few nodes; of those, the best
    two together by the policy. The better of them is the primary.

    Without risk groups and a limit of hops that is exact. With them the problem is NP-hard: then the pair is the best
    of those that the lightest paths give as primaries, and what it shares is told all the same.

    Raises:
        NoPath: not even one path keeps to the constraints.
    """
    request = _Request(view, source, target, constraints, policy)

    def solve(weights: Sequence[int]) -> list[Arcs]:
        return diverse_pair(view, weights, request.start, request.end, constraints.maximum_hops)

    def as_diverse(found: Sequence[Arcs], reference: Sequence[Arcs]) -> bool:
        if len(found) < 2 or len(reference) < 2:
            return len(found) == len(reference)
        return overlap(view, *found[:2]).rank <= overlap(view, *reference[:2]).rank

    paths = [request.path(arcs) for arcs in request.solved(solve, as_diverse)]
    primary, backup = paths[0], paths[1] if len(paths) == 2 else None
    return Pair(primary, backup, overlap(view, primary.arcs, (backup or primary).arcs))


def paths_for_shares(
    view: NetworkView,
    source: str,
    target: str,
    count: int,
    constraints: Constraints = UNCONSTRAINED,
    policy: Policy = Policy.RESIDUAL,
) -> list[Path]:
    """`count` paths that have no node between the ends in common, the best together by the policy, the best first.

    A direct link is such a path: no node between the ends sees its share.

    Raises:
        TooFewPaths: there are fewer, or, with a limit of hops, none were found that keep to it.
    """
    request = _Request(view, source, target, constraints, policy)

    def solve(weights: Sequence[int]) -> list[Arcs]:
        found = disjoint(view.topology, weights, request.start, request.end, count)
        limit = constraints.maximum_hops
        if limit is not None and any(len(arcs) > limit for arcs in found):
            found = disjoint(view.topology, [min(1, one) for one in weights], request.start, request.end, count)
            found = [arcs for arcs in found if len(arcs) <= limit]
        return found

    def as_many(found: Sequence[Arcs], reference: Sequence[Arcs]) -> bool:
        return len(found) == len(reference)

    try:
        found = request.solved(solve, as_many)
    except TooFewPaths:
        raise
    except NoPath:
        raise TooFewPaths(0, count) from None
    if len(found) < count:
        raise TooFewPaths(len(found), count)
    return [request.path(arcs) for arcs in found]


def best_paths(
    view: NetworkView,
    source: str,
    target: str,
    count: int,
    constraints: Constraints = UNCONSTRAINED,
    policy: Policy = Policy.RESIDUAL,
) -> list[Path]:
    """Up to `count` loop-free paths of least weight, the best first; by `widest-shortest` the wider first of those
    found that have equally many hops.
    """
    request = _Request(view, source, target, constraints, policy)
    found = k_shortest(view.topology, request.weights, request.start, request.end, constraints.maximum_hops)
    paths = [request.path(arcs) for arcs in islice(found, count)]
    if policy is Policy.WIDEST_SHORTEST:
        widths = view.per_arc(spare)
        paths.sort(key=lambda path: (path.hops, -min(widths[arc] for arc in path.arcs)))
    return paths


def path_along(view: NetworkView, nodes: Sequence[str], links: Sequence[str], policy: Policy) -> Path:
    """A path that is known, with what it weighs now.

    Raises:
        KeyError: the view has no such links.
    """
    arcs = tuple(view.arc(link, origin) for link, origin in zip(links, nodes[:-1], strict=True))
    return Path(tuple(nodes), tuple(links), arcs, weight_of(view.per_arc(WEIGHTS[policy]), arcs))


@dataclass(slots=True)
class _Request:
    """Ends and weights of one computation."""

    view: NetworkView
    source: str
    target: str
    constraints: Constraints
    policy: Policy
    start: int = 0
    end: int = 0
    weights: Sequence[int] = ()

    def __post_init__(self) -> None:
        numbers = self.view.topology.node_number
        if self.source not in numbers or self.target not in numbers:
            raise NoPath(f"no node {self.target if self.source in numbers else self.source}")
        if self.source == self.target:
            raise NoPath("a path has two ends")
        self.start, self.end = numbers[self.source], numbers[self.target]
        self.weights = usable_weights(self.view, self.view.per_arc(WEIGHTS[self.policy]), self.constraints)

    def solved(
        self,
        solve: Callable[[Sequence[int]], list[Arcs]],
        as_good: Callable[[Sequence[Arcs], Sequence[Arcs]], bool] = lambda found, reference: bool(found),
    ) -> list[Arcs]:
        """What `solve` finds by the policy.

        For `widest-shortest` that is the solution over the widest arcs alone that is `as_good` as that over all, and
        weighs the same.

        Raises:
            NoPath: it finds nothing.
        """
        found = solve(self.weights)
        if not found:
            raise NoPath(f"none from {self.source} to {self.target} that keeps to the constraints")
        if self.policy is not Policy.WIDEST_SHORTEST:
            return found
        reference, weight = found, self._weight(found)
        widths_of = self.view.per_arc(spare)
        widths = sorted({one for one, used in zip(widths_of, self.weights, strict=True) if used})
        low, high = 0, len(widths)
        while high - low > 1:
            middle = (low + high) // 2
            width = widths[middle]
            narrowed = [one if have >= width else 0 for one, have in zip(self.weights, widths_of, strict=True)]
            wider = solve(narrowed)
            if wider and as_good(wider, reference) and self._weight(wider) <= weight:
                low, found = middle, wider
            else:
                high = middle
        return found

    def path(self, arcs: Arcs) -> Path:
        """A path by names."""
        view = self.view
        numbers = nodes_of(view.topology, self.start, arcs)
        return Path(
            tuple(view.nodes[number].id for number in numbers),
            tuple(view.links[arc >> 1].id for arc in arcs),
            arcs,
            weight_of(self.weights, arcs),
        )

    def _weight(self, found: Sequence[Arcs]) -> int:
        return sum(weight_of(self.weights, arcs) for arcs in found)
