"""A forwarding table takes a whole valid table, or nothing."""

from __future__ import annotations

import pytest

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


def test_a_node_without_akms_delivers_nothing() -> None:
    table = ForwardingTable("ckms-2", ["ckms-1"], delivers=False)

    with pytest.raises(InvalidForwarding, match="has no AKMS"):
        table.replace([entry(1, "ckms-1", None)], [])
