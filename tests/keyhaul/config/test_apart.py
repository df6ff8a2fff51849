"""Paths without a common node, counted; and what is said of contracts that want more than there are."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhaul.command.network import network
from keyhaul.config.apart import paths_apart, warnings
from keyhaul.config.description_checks import load_description
from keyhaul.config.plan import subscribers
from keyhaul.config.problems import ConfigurationError
from tests.laboratory import BERLIN_BONN, SMALL, with_controller

RING = Path(__file__).parents[2] / "privacy" / "ring.toml"


def joined(*pairs: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pair in pairs:
        first, second = list(pair)
        found.setdefault(first, []).append(second)
        found.setdefault(second, []).append(first)
    return found


@pytest.mark.parametrize(
    ("pairs", "enough", "found"),
    [
        (("ab",), 2, 1),
        (("ac", "cb"), 2, 1),
        (("ab", "ac", "cb"), 2, 2),
        (("ac", "cb", "ad", "db"), 2, 2),
        (("ac", "cb", "ad", "db", "ae", "eb"), 2, 2),
        (("ac", "cb", "ad", "db", "ae", "eb"), 5, 3),
        (("ax", "xc", "xd", "cb", "db"), 2, 1),
        (("ac", "db"), 2, 0),
    ],
)
def test_paths_are_counted(pairs: tuple[str, ...], enough: int, found: int) -> None:
    assert paths_apart(joined(*pairs), "a", "b", enough) == found


def test_a_first_path_through_the_middle_is_taken_back_for_two_beside_it() -> None:
    """The shortest path a – c – d – b uses a node of each of the two others."""
    net = joined("ac", "cd", "db", "ae", "ef", "fd", "cg", "gh", "hb")
    assert paths_apart(net, "a", "b") == 2


def all_paths(net: dict[str, list[str]], way: tuple[str, ...]) -> list[tuple[str, ...]]:
    if way[-1] == "b":
        return [way]
    return [path for node in net.get(way[-1], ()) if node not in way for path in all_paths(net, (*way, node))]


@settings(max_examples=150, deadline=None)
@given(st.sets(st.frozensets(st.sampled_from("abcdef"), min_size=2, max_size=2), max_size=11))
def test_as_many_are_found_as_there_are(links: set[frozenset[str]]) -> None:
    """By brute force: pairs and triples of all simple paths."""
    net = joined(*("".join(sorted(link)) for link in links))
    paths = all_paths(net, ("a",)) if "a" in net else []
    best = min(1, len(paths))
    for size in (2, 3):
        for some in combinations(paths, size):
            inner = [node for path in some for node in path[1:-1]]
            if len(set(inner)) == len(inner):
                best = size
    assert paths_apart(net, "a", "b", 3) == best


def described(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "network.toml"
    file.write_text(text)
    return list(warnings(load_description(file)))


def test_berlin_bonn_is_warned_of_class_split_and_of_nothing_else(tmp_path: Path) -> None:
    text = BERLIN_BONN.read_text()
    assert described(tmp_path, text) == []
    assert described(tmp_path, text.replace('class = "gold"', 'class = "split"')) == [
        "second/gold: class split needs 2 paths without a common node, and between the access nodes 14 and 2 there "
        "is 1: requests will be refused"
    ]


def test_a_ring_is_warned_of_the_node_that_hangs_on_it_alone() -> None:
    told = list(warnings(load_description(RING)))
    assert [line.partition("access nodes ")[2].partition(" there")[0] for line in told] == ["a and c", "b and c"]


def test_class_split_without_a_controller_is_warned_of_once(tmp_path: Path) -> None:
    text = SMALL.read_text().replace('class = "silver"', 'class = "split"')
    assert described(tmp_path, with_controller(text)) == []
    [told] = described(tmp_path, text)
    assert "class split needs a controller" in told


def test_a_contract_of_class_split_reaches_aaa_and_no_static_path_is_of_it(tmp_path: Path) -> None:
    file = tmp_path / "network.toml"
    file.write_text(SMALL.read_text().replace('class = "silver"', 'class = "split"'))
    assert "split" in {contract.service_class for contract in subscribers(load_description(file)).contract}
    for table in ("[[carrier]]", "[[link.carrier]]"):
        text = SMALL.read_text().replace("[[customer]]", f'{table}\nclass = "split"\n\n[[customer]]', 1)
        with pytest.raises(ConfigurationError, match="class"):
            described(tmp_path, text)


@pytest.mark.parametrize("as_json", [False, True])
def test_laying_a_network_out_warns_of_what_it_will_not_serve(tmp_path: Path, as_json: bool) -> None:
    options = ["--json"] if as_json else []
    done = CliRunner().invoke(network, ["init", str(RING), "--out", str(tmp_path / "n"), *options])
    assert done.exit_code == 0
    if as_json:
        assert len(json.loads(done.stdout)["warnings"]) == 2
    else:
        assert done.stderr.count("Warning: wary/split: class split needs 2 paths without a common node") == 2
        assert "Warning" not in done.stdout
