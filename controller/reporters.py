"""What is wrong with those who report: silent nodes, impostors, nodes and links that no plan knows. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

from controller.belief import Disagreement, Kind
from controller.facts import LinkFacts, NodeReport
from controller.planned import PlannedNetwork
from controller.rhythm import Rhythm

STRAYS = 8
"""Links of one node that no plan knows and that are told one by one: no node makes more of them than operators can
read, nor an alarm of each."""

LOOK = 1.0
"""Seconds between looks in a small network."""

Wrong = Mapping[str, tuple[Disagreement, ...]]
"""What is wrong, by the node that it is about or that tells of it; nodes of which nothing is are left out."""


class Places:
    """Where what is planned stands; made once for a plan."""

    def __init__(self, planned: PlannedNetwork) -> None:
        self.links = frozenset(link.id for link in planned.links)
        self.number = {node.id: number for number, node in enumerate(planned.nodes)}
        self.links_of: dict[str, list[int]] = {node.id: [] for node in planned.nodes}
        """The numbers of each node's links."""
        self.neighbours: dict[str, list[str]] = {node.id: [] for node in planned.nodes}
        for number, link in enumerate(planned.links):
            for end, other in ((link.a, link.b), (link.b, link.a)):
                self.links_of[end].append(number)
                self.neighbours[end].append(other)
        self.pairs = {node: frozenset(neighbours) for node, neighbours in self.neighbours.items()}
        self.look = LOOK * Rhythm.of(len(planned.nodes)).stretch
        """Seconds after which a mean that moves is looked at again, though nobody tells anything."""


def is_fresh(report: NodeReport | None, now: float) -> bool:
    """Whether a node has told anything of late."""
    return report is not None and report.left(report.at, now) >= 0


def is_trusted(report: NodeReport | None, now: float) -> bool:
    """Whether a node tells of itself, afresh and by its own name."""
    return report is not None and is_fresh(report, now) and report.service_id in ("", report.node)


def aged(places: Places, reports: Mapping[str, NodeReport], before: float, now: float) -> Iterator[str]:
    """The planned nodes that were fresh and are not any more."""
    for node in places.number:
        report = reports.get(node)
        if is_fresh(report, before) and not is_fresh(report, now):
            yield node


def wrong(places: Places, reports: Mapping[str, NodeReport], now: float) -> Wrong:
    """Look at all nodes, those that are planned first."""
    found = {node: tuple(_of(node, places, reports, now)) for node in {**places.number, **dict.fromkeys(reports)}}
    return {node: those for node, those in found.items() if those}


def amended(former: Wrong, touched: Set[str], places: Places, reports: Mapping[str, NodeReport], now: float) -> Wrong:
    """Look at some nodes again, and at all of which something else may be wrong because of them or the time.

    Args:
        former: what was wrong.
        touched: nodes that have reported since, or are too long silent now.
        places: of the plan.
        reports: of all nodes.
        now: seconds.
    """
    again = {neighbour for node in touched for neighbour in places.neighbours.get(node, ()) if neighbour in former}
    again |= touched
    # What somebody said of it may have aged.
    again.update(node for node, those in former.items() if any(one.said for one in those))
    found = {node: tuple(_of(node, places, reports, now)) for node in again}
    if all(former.get(node, ()) == those for node, those in found.items()):
        return former
    latter = {**former, **found}
    return {node: those for node, those in latter.items() if those}


def _of(node: str, places: Places, reports: Mapping[str, NodeReport], now: float) -> Iterator[Disagreement]:
    report = reports.get(node)
    planned = node in places.number
    if planned and not is_fresh(report, now):
        yield Disagreement(Kind.SILENT, node, (*_heard(node, places, reports, now),))
    if report is None:
        return
    if not planned:
        yield Disagreement(Kind.UNPLANNED, node)
    elif report.service_id not in ("", node):
        yield Disagreement(Kind.IMPOSTOR, node, ((node, report.service_id),))
    pairs = places.pairs.get(node, frozenset())
    if report.unreadable:
        yield Disagreement(Kind.NONSENSE, node, ((node, "what cannot be read"),))
    if report.links.keys() <= pairs:
        return
    strays = [
        received.facts
        for neighbour, received in report.links.items()
        if neighbour not in pairs and report.left(received.at, now) >= 0
    ]
    for facts in strays[:STRAYS]:
        yield _stray(node, facts, places.links)
    if len(strays) > STRAYS:
        yield Disagreement(Kind.UNPLANNED, node, ((node, "more links that no plan knows"),))


def _heard(silent: str, places: Places, reports: Mapping[str, NodeReport], now: float) -> Iterator[tuple[str, str]]:
    """The neighbours for which the link to a silent node is up: it is cut off from the controller alone."""
    for neighbour in places.neighbours[silent]:
        report = reports.get(neighbour)
        if report is None or not is_trusted(report, now):
            continue
        received = report.links.get(silent)
        if received is not None and report.left(received.at, now) >= 0 and received.facts.up:
            yield neighbour, "the link is up"


def _stray(node: str, facts: LinkFacts, planned: Set[str]) -> Disagreement:
    kind = Kind.NEIGHBOUR if facts.id in planned else Kind.UNPLANNED
    return Disagreement(kind, facts.id, ((node, f"neighbour {facts.neighbour}"),))
