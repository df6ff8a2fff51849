"""What a description allows but its network cannot serve: class split where all paths meet somewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from keyhaul.config.description import Description
from keyhaul.identity.names import Role
from keyhaul.keys.grants import SPLIT

PATHS = 2
"""So many paths without a common node class split needs at least."""

_Side = tuple[str, bool]
"""A node where paths come in (False), or where they leave (True)."""


def paths_apart(neighbours: Mapping[str, Sequence[str]], source: str, target: str, enough: int = PATHS) -> int:
    """Return how many paths, `enough` at most, lead from one node to another without a common node in between."""
    taken: set[tuple[_Side, _Side]] = set()
    for found in range(enough):
        way = _further(neighbours, source, target, taken)
        if way is None:
            return found
        for arc in way:
            back = arc[1], arc[0]
            if back in taken:
                taken.remove(back)
            else:
                taken.add(arc)
    return enough


def warnings(description: Description) -> Iterator[str]:
    """Tell of contracts of class split whose requests will be refused, between which access nodes, and why."""
    asked = _asked_for(description)
    if asked and not description.with_role(Role.CONTROLLER):
        named = ", ".join(sorted({contract for contract, _, _ in asked}))
        yield f"{named}: class split needs a controller, and no node has that role: requests will be refused"
        return
    neighbours = description.carrier().neighbours()
    for contract, first, second in sorted(asked):
        found = paths_apart(neighbours, first, second)
        if found < PATHS:
            yield (
                f"{contract}: class split needs {PATHS} paths without a common node, and between the access nodes "
                f"{first} and {second} there {'is 1' if found else 'are none'}: requests will be refused"
            )


def _asked_for(description: Description) -> set[tuple[str, str, str]]:
    """The contracts of class split, each with the pairs of access nodes between which it may be asked for."""
    sites = {sae.id: description.access_node(sae.node) for sae in description.sae}
    found: set[tuple[str, str, str]] = set()
    for sae in description.sae:
        contract = description.contract_of(sae)
        if contract.service_class == SPLIT:
            for peer in description.peers_of(sae):
                first, second = sorted((sites[sae.id], sites[peer]))
                if first != second:
                    found.add((f"{sae.customer}/{contract.name}", first, second))
    return found


def _further(
    neighbours: Mapping[str, Sequence[str]], source: str, target: str, taken: set[tuple[_Side, _Side]]
) -> list[tuple[_Side, _Side]] | None:
    """One path more, which may take back parts of others (Ford and Fulkerson); None: there is none."""
    came: dict[_Side, _Side] = {}
    start, end = (source, True), (target, False)
    waiting = deque([start])
    while waiting:
        here = waiting.popleft()
        node, leaving = here
        inside = (node, not leaving)
        across: list[_Side] = [(other, not leaving) for other in neighbours.get(node, ())]
        forward = [(here, side) for side in across] if leaving else [(here, inside)]
        back = [(inside, here)] if leaving else [(side, here) for side in across]
        onward = [arc[1] for arc in forward if arc not in taken] + [arc[0] for arc in back if arc in taken]
        for side in onward:
            if side in came or side == start:
                continue
            came[side] = here
            if side == end:
                return list(_back_to(start, end, came))
            waiting.append(side)
    return None


def _back_to(start: _Side, end: _Side, came: Mapping[_Side, _Side]) -> Iterator[tuple[_Side, _Side]]:
    here = end
    while here != start:
        yield came[here], here
        here = came[here]
