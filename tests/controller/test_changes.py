"""What operators are told of the time between two discoveries."""

from __future__ import annotations

from controller.changes import Change, changes
from controller.facts import LinkFacts, NodeReport, PoolFacts, Received
from controller.planned import PlannedLink, PlannedNetwork, PlannedNode
from controller.topology import Discovery, discover

SUITES = frozenset({"otp"})
PLANNED = PlannedNetwork(
    (PlannedNode("ckms-1"), PlannedNode("ckms-2")),
    (PlannedLink("1-2", "ckms-1", "ckms-2", rate=1_000, capacity=8_000, suites=SUITES),),
)
POOL = PoolFacts(available=900, capacity=1_000)


def report(node: str, neighbour: str, at: float, *, up: bool = True) -> NodeReport:
    facts = LinkFacts(
        "1-2", neighbour, up=up, quantum=True, suite="otp", suites=SUITES, rate=1_000, outgoing=POOL, incoming=POOL
    )
    return NodeReport(node, at, node, links={neighbour: Received(facts, at)})


def seen(now: float, *ends: NodeReport, before: Discovery | None = None) -> Discovery:
    return discover(PLANNED, {end.node: end for end in ends}, now, before)


def both(at: float, *, up: bool = True) -> tuple[NodeReport, NodeReport]:
    return report("ckms-1", "ckms-2", at, up=up), report("ckms-2", "ckms-1", at, up=up)


def told(before: Discovery | None, after: Discovery) -> list[tuple[str, str]]:
    return [(note.kind, note.subject) for note in changes(before, after)]


def test_the_first_discovery_tells_nothing() -> None:
    assert told(None, seen(1.0, *both(1.0))) == []


def test_a_link_that_goes_and_comes_is_told_once_each() -> None:
    first = seen(1.0, *both(1.0))
    down = seen(2.0, *both(2.0, up=False), before=first)
    still = seen(3.0, *both(3.0, up=False), before=down)
    again = seen(4.0, *both(4.0), before=still)
    assert told(first, down) == [(Change.LINK_DOWN, "1-2")]
    assert told(down, still) == []
    assert told(still, again) == [(Change.LINK_UP, "1-2")]


def test_a_node_that_falls_silent_takes_its_links_with_it() -> None:
    first = seen(1.0, *both(1.0))
    later = seen(9.0, report("ckms-1", "ckms-2", 9.0), both(1.0)[1], before=first)
    assert told(first, later) == [(Change.NODE_SILENT, "ckms-2"), (Change.LINK_DOWN, "1-2")]
    assert [note.facts for note in changes(first, later)][1] == {"state": "unknown"}
    assert told(later, seen(10.0, *both(10.0), before=later)) == [
        (Change.NODE_HEARD, "ckms-2"),
        (Change.LINK_UP, "1-2"),
    ]


def test_figures_alone_are_no_event() -> None:
    first = seen(1.0, *both(1.0))
    assert told(first, seen(2.0, *both(2.0), before=first)) == []
