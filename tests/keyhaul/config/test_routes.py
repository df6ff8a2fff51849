"""The shortest path by km, and the detour that shares as few links with it as can be."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from keyhaul.config.routes import Hop, Routes, hops_of, reachable


def routes(**lengths: float) -> Routes:
    return Routes({frozenset(name): length for name, length in lengths.items()})


def test_the_shortest_is_by_length_not_by_hops() -> None:
    assert routes(ab=1, bc=1, ac=3).shortest("a", "c") == ("a", "b", "c")
    assert routes(ab=1, bc=1, ac=1.9).shortest("a", "c") == ("a", "c")


def test_equal_paths_are_told_apart_by_hops_and_names() -> None:
    assert routes(ac=1, cd=1, ab=1, bd=1).shortest("a", "d") == ("a", "b", "d")
    assert routes(ab=1, bd=1, ad=2).shortest("a", "d") == ("a", "d")


def test_the_detour_leaves_the_first_path_only_where_it_can() -> None:
    chain = routes(ab=1, bc=1, cd=1, bx=5, xc=5)
    assert chain.ranked("a", "d") == [("a", "b", "c", "d"), ("a", "b", "x", "c", "d")]


def test_the_detour_prefers_fewer_shared_links_to_fewer_km() -> None:
    net = routes(ab=1, bc=1, cd=1, bx=1, xc=1, ay=50, yd=50)
    assert net.ranked("a", "d")[1] == ("a", "y", "d")


def test_without_an_alternative_there_is_no_detour() -> None:
    assert routes(ab=1, bc=1).ranked("a", "c") == [("a", "b", "c")]
    assert routes(ab=1, cd=1).ranked("a", "d") == []


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.frozensets(st.sampled_from("abcdefg"), min_size=2, max_size=2), st.integers(1, 100), min_size=1, max_size=14
    )
)
def test_paths_are_simple_walk_along_links_and_no_detour_is_shorter(lengths: dict[Hop, int]) -> None:
    net = Routes(lengths)
    ranked = net.ranked("a", "g")
    assert bool(ranked) is ("g" in reachable("a", lengths))
    for path in ranked:
        assert (path[0], path[-1]) == ("a", "g")
        assert len(set(path)) == len(path)
        assert all(hop in lengths for hop in hops_of(path))
    total = [sum(lengths[hop] for hop in hops_of(path)) for path in ranked]
    assert total == sorted(total)
    assert len(set(ranked)) == len(ranked)
