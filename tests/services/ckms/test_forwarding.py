"""A forwarding table takes a whole valid table, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ckms.forwarding import Entry, ForwardingTable, Hop, InvalidForwarding, Path, PathLabel


def label(number: int) -> PathLabel:
    return PathLabel(f"{number:016x}")


def entry(number: int, previous: str, following: Hop | None) -> Entry:
    return Entry(label(number), previous, following)


@pytest.fixture
def table() -> ForwardingTable:
    return ForwardingTable("ckms-2", ["ckms-1", "ckms-3", "ckms-16"], delivers=True)


def test_a_label_is_known_only_over_its_previous_hop(table: ForwardingTable) -> None:
    onward = entry(1, "ckms-1", Hop("ckms-3", label(2)))
    deliver = entry(1, "ckms-3", None)
    table.replace([onward, deliver], [])

    assert table.lookup(label(1), "ckms-1") == onward
    assert table.lookup(label(1), "ckms-3") == deliver
    assert table.lookup(label(1), "ckms-16") is None
    assert table.lookup(label(2), "ckms-1") is None


def test_paths_come_in_the_order_of_rank(table: ForwardingTable) -> None:
    detour = Path("ckms-14", 1, Hop("ckms-16", label(8)))
    shortest = Path("ckms-14", 0, Hop("ckms-3", label(7)))
    table.replace([], [detour, shortest])

    assert table.paths_to("ckms-14") == (shortest, detour)
    assert table.paths_to("ckms-9") == ()


@pytest.mark.parametrize(
    ("entries", "paths", "says"),
    [
        ([entry(1, "ckms-1", None), entry(1, "ckms-1", Hop("ckms-3", label(2)))], [], "another entry"),
        ([entry(1, "ckms-9", None)], [], "'ckms-9' is no neighbour"),
        ([entry(1, "ckms-1", Hop("ckms-9", label(2)))], [], "'ckms-9' is no neighbour"),
        ([entry(1, "ckms-1", Hop("ckms-1", label(2)))], [], "sends back"),
        ([Entry(PathLabel("12"), "ckms-1", None)], [], "is not a label"),
        ([Entry(PathLabel("X" * 16), "ckms-1", None)], [], "is not a label"),
        ([], [Path("ckms-2", 0, Hop("ckms-3", label(1)))], "leads to ckms-2 itself"),
        ([], [Path("ckms-9", -1, Hop("ckms-3", label(1)))], "0 or more"),
        ([], [Path("ckms-9", 0, Hop("ckms-3", label(1))), Path("ckms-9", 0, Hop("ckms-1", label(2)))], "this rank"),
        (
            [entry(1, "ckms-1", Hop("ckms-3", label(5)))],
            [Path("ckms-9", 0, Hop("ckms-3", label(5)))],
            "two paths leave",
        ),
    ],
)
def test_a_wrong_table_is_refused_and_the_old_one_stays(
    table: ForwardingTable, entries: list[Entry], paths: list[Path], says: str
) -> None:
    before = entry(77, "ckms-1", None)
    table.replace([before], [])

    with pytest.raises(InvalidForwarding, match=says):
        table.replace(entries, paths)

    assert table.entries == (before,)
    assert table.paths == ()


def test_every_error_is_told_at_once(table: ForwardingTable) -> None:
    with pytest.raises(InvalidForwarding) as refused:
        table.replace([entry(1, "ckms-7", Hop("ckms-8", label(2)))], [Path("ckms-2", 0, Hop("ckms-9", label(3)))])

    assert len(refused.value.errors) == 4


def test_a_node_without_akms_delivers_nothing_and_sends_nothing_of_its_own() -> None:
    table = ForwardingTable("ckms-2", ["ckms-1"], delivers=False)

    with pytest.raises(InvalidForwarding, match="has no AKMS"):
        table.replace([entry(1, "ckms-1", None)], [])
    with pytest.raises(InvalidForwarding, match="has no AKMS"):
        table.replace([], [Path("ckms-9", 0, Hop("ckms-1", label(2)))])


def stated(number: int, rank: int, *, service_class: str | None = None, to: str = "ckms-3") -> Path:
    return Path("ckms-14", rank, Hop(to, label(number)), service_class, serial=number)


def static(number: int, rank: int, *, service_class: str | None = None) -> Path:
    return Path("ckms-14", rank, Hop("ckms-1", label(number)), service_class)


def test_paths_of_statements_come_first_and_static_ones_after(table: ForwardingTable) -> None:
    paths = [static(1, 0), stated(2, 1), stated(3, 0)]
    table.replace([], paths)

    assert table.paths_to("ckms-14") == (paths[2], paths[1], paths[0])
    assert table.paths_to("ckms-14", "gold") == (paths[2], paths[1], paths[0])
    assert table.paths == (paths[2], paths[1], paths[0])


def test_a_class_with_stated_paths_of_its_own_falls_back_on_none_that_is_for_any(table: ForwardingTable) -> None:
    gold, any_class, configured = stated(1, 0, service_class="gold"), stated(2, 0), static(3, 0)
    table.replace([], [gold, any_class, configured])

    assert table.paths_to("ckms-14", "gold") == (gold,)
    assert table.paths_to("ckms-14", "silver") == (any_class, configured)
    own = static(4, 0, service_class="gold")
    table.replace([], [gold, configured, own])
    assert table.paths_to("ckms-14", "gold") == (gold, own)
    assert table.paths_to("ckms-14", "silver") == (configured,)


def test_keys_of_class_split_have_no_path_but_their_shares(table: ForwardingTable) -> None:
    shares = [
        Path("ckms-14", rank, Hop(to, label(rank + 5)), "split", group="g", share=rank, shares=2, serial=rank + 5)
        for rank, to in enumerate(["ckms-3", "ckms-16"])
    ]
    table.replace([], [static(1, 0), stated(2, 0), *shares])

    assert table.paths_to("ckms-14", "split") == ()
    assert table.shares_to("ckms-14") == tuple(shares)
    assert table.shares_to("ckms-9") == ()


def test_a_neighbour_never_gets_two_shares(table: ForwardingTable) -> None:
    one = Path("ckms-14", 0, Hop("ckms-3", label(5)), "split", group="g", share=0, shares=2, serial=5)
    other = Path("ckms-14", 1, Hop("ckms-3", label(6)), "split", group="g", share=1, shares=2, serial=6)

    with pytest.raises(InvalidForwarding, match="would see two shares"):
        table.replace([], [one, other])


def detouring(detour: Hop, following: Hop | None = None) -> Entry:
    return Entry(label(1), "ckms-1", following or Hop("ckms-3", label(2)), detour=detour)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (detouring(Hop("ckms-1", label(3))), "sends back"),
        (detouring(Hop("ckms-3", label(3))), "over the link that it should avoid"),
        (detouring(Hop("ckms-9", label(3))), "'ckms-9' is no neighbour"),
        (detouring(Hop("ckms-16", PathLabel("3"))), "is not a label"),
        (Entry(label(1), "ckms-1", None, detour=Hop("ckms-3", label(2))), "though it delivers here"),
    ],
)
def test_a_detour_that_leads_nowhere_better_is_refused(table: ForwardingTable, wrong: Entry, says: str) -> None:
    with pytest.raises(InvalidForwarding, match=says):
        table.check([], [entry(7, "ckms-3", None), wrong])


def test_a_detour_shares_no_label_with_what_leaves_over_its_link(table: ForwardingTable) -> None:
    with pytest.raises(InvalidForwarding, match="two paths leave"):
        table.check([], [detouring(Hop("ckms-16", label(9))), entry(4, "ckms-1", Hop("ckms-16", label(9)))])


def test_a_check_changes_nothing_and_an_amendment_what_it_says(table: ForwardingTable) -> None:
    former, other, latter = entry(1, "ckms-1", Hop("ckms-3", label(9))), stated(2, 0), stated(9, 0)
    table.replace([former], [other])
    before = (table.entries, table.paths)

    table.check([former, other], [latter])
    assert (table.entries, table.paths) == before
    with pytest.raises(InvalidForwarding, match="another path of this rank"):
        table.amend([], [latter])
    with pytest.raises(InvalidForwarding, match="two paths leave"):
        table.amend([other], [latter])
    assert (table.entries, table.paths) == before
    table.amend([former, other], [latter])
    assert (table.entries, table.paths) == ((), (latter,))


ROWS = st.one_of(
    st.builds(
        Entry,
        st.sampled_from([label(1), label(2)]),
        st.sampled_from(["ckms-1", "ckms-3"]),
        st.one_of(
            st.none(), st.builds(Hop, st.sampled_from(["ckms-3", "ckms-16"]), st.sampled_from([label(1), label(2)]))
        ),
        serial=st.just(1),
    ),
    st.builds(
        Path,
        st.just("ckms-14"),
        st.integers(0, 1),
        st.builds(Hop, st.sampled_from(["ckms-3", "ckms-16"]), st.sampled_from([label(1), label(2)])),
        st.just("split"),
        group=st.just("g"),
        share=st.integers(0, 1),
        shares=st.just(2),
        serial=st.integers(1, 2),
    ),
)


@given(st.lists(st.tuples(st.lists(ROWS, max_size=3), st.integers(0, 7)), max_size=12))
def test_whatever_is_amended_the_table_is_what_a_whole_one_of_its_rows_would_be(
    steps: list[tuple[list[Entry | Path], int]],
) -> None:
    table = ForwardingTable("ckms-2", ["ckms-1", "ckms-3", "ckms-16"], delivers=True)
    rows: list[Entry | Path] = []
    for latter, which in steps:
        former = [row for place, row in enumerate(rows) if which >> place & 1]
        kept = [row for place, row in enumerate(rows) if not which >> place & 1]
        whole = ForwardingTable("ckms-2", ["ckms-1", "ckms-3", "ckms-16"], delivers=True)
        fits = True
        try:
            whole.amend([], kept + latter)
            rows = kept + latter
        except InvalidForwarding:
            whole.replace([row for row in rows if isinstance(row, Entry)], [r for r in rows if isinstance(r, Path)])
            fits = False
        try:
            table.amend(former, latter)
            assert fits
        except InvalidForwarding:
            assert not fits
        assert set(table.entries) == set(whole.entries)
        assert table.shares_to("ckms-14") == whole.shares_to("ckms-14")
        assert set(table.places()) == set(whole.places())
