"""Class split on real networks: admitted wherever two paths share no node in between, and nowhere else."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import pytest

from controller.admission.admit import Admission, Demand, admit
from controller.admission.classes import CLASSES
from controller.admission.refusal import Reason, Refusal
from controller.admission.reservations import Reservations
from controller.view import NetworkView
from keyhaul.config.apart import paths_apart
from keyhaul.config.description_checks import load_description
from tests.controller.networks import line
from tests.laboratory import BERLIN_BONN, ROOT

TOPOLOGIES = ROOT.parent / "shared" / "topologies"
NETS = {
    "sndlib-nobel-germany": (17, 26, 0),
    "topozoo-Geant2012": (37, 58, 228),
}
"""Nodes, links, and how many pairs are refused."""

with_topologies = pytest.mark.skipif(
    not TOPOLOGIES.is_dir(), reason="the topologies are not beside the project (../shared/topologies)"
)


def pairs_of(file: Path) -> list[tuple[str, str]]:
    """The links of a GraphML file; of parallel ones, the first."""
    edges = ET.parse(file).iter("{http://graphml.graphdrawing.org/xmlns}edge")
    found = {frozenset((edge.attrib["source"], edge.attrib["target"])) for edge in edges}
    return sorted(tuple(sorted(ends)) for ends in found if len(ends) == 2)  # type: ignore[misc]


def neighbours(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for first, second in pairs:
        found.setdefault(first, []).append(second)
        found.setdefault(second, []).append(first)
    return found


def decide(view: NetworkView, source: str, target: str) -> Admission | Refusal:
    reservations = Reservations()
    return admit(reservations.onto(view), reservations, Demand("d", source, target, "split", 100), 0.0)


def check(view: NetworkView, joined: dict[str, list[str]], source: str, target: str) -> bool:
    """Hold a decision to a count of its own of the paths that share no node."""
    apart = paths_apart(joined, source, target)
    decided = decide(view, source, target)
    if apart < 2:
        assert isinstance(decided, Refusal)
        assert (decided.reason, decided.paths_found) == (Reason.TOO_FEW_PATHS, apart)
        return False
    assert isinstance(decided, Admission)
    first, second = decided.paths
    assert not set(first.nodes[1:-1]) & set(second.nodes[1:-1])
    assert {path.nodes[0] for path in decided.paths} == {source}
    assert {path.nodes[-1] for path in decided.paths} == {target}
    assert decided.price == CLASSES["split"].expansion * (first.hops + second.hops)
    return True


@with_topologies
@pytest.mark.parametrize("name", NETS)
def test_whoever_has_two_paths_apart_is_served_and_nobody_else(name: str) -> None:
    pairs = pairs_of(TOPOLOGIES / f"{name}.graphml")
    view, joined = line(*pairs), neighbours(pairs)
    nodes, links, refusals = NETS[name]
    assert (len(joined), len(pairs)) == (nodes, links)
    served = [check(view, joined, *ends) for ends in combinations(sorted(joined), 2)]
    assert served.count(True) > 0
    assert served.count(False) == refusals


def test_berlin_bonn_refuses_all_pairs_of_which_one_node_is_on_every_path() -> None:
    description = load_description(BERLIN_BONN)
    joined = description.carrier().neighbours()
    pairs = sorted({(min(one, other), max(one, other)) for one, others in joined.items() for other in others})
    view = line(*pairs)
    served = {ends for ends in combinations(sorted(joined), 2) if check(view, joined, *ends)}
    assert ("14", "2") not in served
    # Only the two nodes at the ends of the detour, and those on it, have two ways to each other.
    assert served == set(combinations(("16", "8", "9"), 2))
