"""The view: numbering, and views made from views."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.paths.policies import residual, spare
from controller.view import KEPT_TABLES, Direction, Link, MalformedView, NetworkView, Node
from tests.controller.networks import directions, line, views


def test_each_link_has_an_arc_each_way() -> None:
    view = line(("a", "b"), ("c", "b"))
    there, back = view.arc("c-b", "c"), view.arc("c-b", "b")
    assert (there, back) == (2, 3)
    assert view.nodes[view.topology.heads[there]].id == "b"
    assert view.nodes[view.topology.tail(there)].id == "c"
    assert view.topology.arcs_from[1] == ((0, 1), (2, 3))


def test_a_direction_is_that_of_the_arc() -> None:
    view = NetworkView((Node("a"), Node("b")), (Link("l", "a", "b", ab=Direction(rate=7), ba=Direction(rate=9)),))
    assert view.link("l").direction(view.arc("l", "a")).rate == 7
    assert view.link("l").direction(view.arc("l", "b")).rate == 9
    with pytest.raises(KeyError):
        view.arc("l", "c")


@pytest.mark.parametrize(
    ("nodes", "links"),
    [
        (("a", "a"), ()),
        (("a", "b"), (("l", "a", "b"), ("l", "a", "b"))),
        (("a",), (("l", "a", "b"),)),
        (("a",), (("l", "a", "a"),)),
    ],
)
def test_what_makes_no_network_is_refused(nodes: tuple[str, ...], links: tuple[tuple[str, str, str], ...]) -> None:
    with pytest.raises(MalformedView):
        NetworkView(tuple(map(Node, nodes)), tuple(Link(*one) for one in links))


@settings(deadline=None, max_examples=100)
@given(views(), st.data())
def test_a_changed_view_is_as_one_that_is_built_anew(view: NetworkView, data: st.DataObject) -> None:
    before = (view.nodes, view.links, list(view.per_arc(residual)), list(view.per_arc(spare)))
    links = [
        replace(link, ab=data.draw(directions()), up=not link.up)
        for link in data.draw(st.lists(st.sampled_from(view.links), unique_by=lambda link: link.id))
    ]
    nodes = [replace(view.nodes[0], quarantined=not view.nodes[0].quarantined)]
    changed = view.changed(links, nodes)
    built = NetworkView(changed.nodes, changed.links, changed.version)
    assert changed == built
    assert changed.version == view.version + 1
    assert changed.topology is view.topology
    assert changed.quarantined == built.quarantined
    assert changed.per_arc(residual) == built.per_arc(residual)
    assert changed.per_arc(spare) == built.per_arc(spare)
    assert (view.nodes, view.links, view.per_arc(residual), view.per_arc(spare)) == before


def test_new_links_and_moved_ones_need_a_new_view() -> None:
    view = line(("a", "b"), ("b", "c"))
    with pytest.raises(KeyError):
        view.changed([Link("other", "a", "c")])
    with pytest.raises(KeyError):
        view.changed([replace(view.links[0], b="c")])


def test_only_what_changed_is_computed_again_and_few_tables_are_kept() -> None:
    view = line(*((str(number), str(number + 1)) for number in range(50)))
    asked: list[str] = []

    def note(link: Link, direction: Direction) -> int:
        asked.append(link.id)
        return direction.rate

    view.per_arc(note)
    assert len(asked) == 100
    view = view.changed([replace(view.links[3], up=False)])
    view.per_arc(note)
    assert asked[100:] == ["3-4", "3-4"]
    for _ in range(KEPT_TABLES):
        view.per_arc(lambda link, direction: 0)
    view.per_arc(note)
    assert len(asked) == 202
