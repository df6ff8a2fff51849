"""What differs between two descriptions, what a running network can take of it, and the steps in which it does."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhaul.config.changes import Change, compare
from keyhaul.config.description import Description
from keyhaul.config.description_checks import load_description
from keyhaul.config.former import Former, former
from keyhaul.config.loader import ConfigurationError, read
from keyhaul.config.plan import services
from keyhaul.config.services import CkmsConfig, QkdmConfig, ServiceConfig
from keyhaul.config.transition import transition
from keyhaul.config.writer import to_toml
from keyhaul.randomness import random_bytes

ROOT = Path(__file__).parents[3]
SMALL = (ROOT / "tests/network/small.toml").read_text()

E = '[[node]]\nname = "e"\nnumber = 7\nroles = ["ckms"]\n\n'
LINKS = "".join(f'[[link]]\na = "{a}"\nb = "{b}"\nkm = 1\nskr = 100_000\n\n' for a, b in ("ae", "eb"))
BIGGER = SMALL.replace("[[link]]", E + "[[link]]", 1).replace("[[customer]]", LINKS + "[[customer]]", 1)
A_TO_M = 'a = "a"\nb = "m"\nkm = 20\n'
D = '[[node]]\nname = "d"\nnumber = 4\nroles = ["ckms"]\n\n'


def described(text: str) -> Description:
    return read(text.encode(), Description, Path("network.toml"))


def differences(before: str, after: str) -> list[Change]:
    return compare(described(before), described(after))


def test_a_node_with_its_links_comes_and_goes() -> None:
    there = [(change.what, change.id, change.kind, change.refused) for change in differences(SMALL, BIGGER)]
    assert there == [("node", "e", "added", ""), ("link", "a-e", "added", ""), ("link", "e-b", "added", "")]
    back = [(change.what, change.id, change.kind, change.refused) for change in differences(BIGGER, SMALL)]
    assert back == [("node", "e", "removed", ""), ("link", "a-e", "removed", ""), ("link", "e-b", "removed", "")]
    assert differences(SMALL, SMALL) == []


@pytest.mark.parametrize(
    ("former", "latter", "field"),
    [
        (A_TO_M, A_TO_M + "enabled = false\n", ("enabled", True, False)),
        (A_TO_M, A_TO_M + 'risk_groups = ["bridge"]\n', ("risk_groups", [], ["bridge"])),
        (A_TO_M, A_TO_M.replace("20", "21"), ("km", 20, 21)),
        ("number = 3\n", 'number = 3\njurisdiction = "FR"\n', ("jurisdiction", "", "FR")),
        ("number = 3\n", 'number = 3\nplace = "Vigo"\n', ("place", "", "Vigo")),
    ],
)
def test_what_controllers_and_paths_know_changes(former: str, latter: str, field: tuple[str, object, object]) -> None:
    (change,) = differences(SMALL, SMALL.replace(former, latter, 1))
    assert (change.fields, change.refused) == ((field,), "")


@pytest.mark.parametrize(
    ("former", "latter", "where", "why"),
    [
        ("number = 3\n", "number = 9\n", "node m", "number: its services are known by it"),
        ('number = 3\nroles = ["ckms"]', 'number = 3\nroles = ["ckms", "akms"]', "node m", "roles"),
        ('number = 3\n', 'number = 3\nagent = "127.0.0.1:9"\n', "node m", "agent"),
        (E, E.replace('"ckms"', '"ckms", "akms"'), "node e", "only carrier nodes"),
        (A_TO_M + "skr = 100_000", A_TO_M + "skr = 1_000", "link a-m", "skr: both ends"),
        (A_TO_M, A_TO_M + "pool = 4096\n", "link a-m", "pool"),
        (A_TO_M, A_TO_M + 'suites = ["otp"]\nfloor = "otp"\n', "link a-m", "suites, floor"),
        (A_TO_M, A_TO_M.replace('a = "a"\nb = "m"', 'a = "m"\nb = "a"'), "link m-a", "called a-m where it runs"),
        ('b = "a"\nkm = 5', 'b = "a"\nkm = 6', "link west-a", "not those of user sites"),
        ('name = "small"', 'name = "large"', "network", "name"),
        ("stock = 60.0", "stock = 6.0", "modules", "stock"),
        ('id = "first-west-2"', 'id = "first-west-3"', "sae first-west-3", "keyhaul aaa import"),
        ('class = "silver"', 'class = "gold"', "customer first", "keyhaul aaa import"),
    ],
)  # fmt: skip
def test_what_a_running_network_cannot_take_is_refused_and_why(former: str, latter: str, where: str, why: str) -> None:
    start = BIGGER if former in (E,) else SMALL
    changed = start.replace(former, latter, 1)
    assert changed != start
    found = {f"{change.what} {change.id}".strip(): change for change in differences(SMALL, changed)}
    assert why in found[where].refused


def test_a_number_is_not_passed_on_while_its_services_run() -> None:
    moved = BIGGER.replace(D, "").replace("number = 7", "number = 4")
    moved = moved.replace('b = "d"', 'b = "e"').replace('a = "d"', 'a = "e"')
    with pytest.raises(ConfigurationError):
        described(moved)  # a and e are joined twice now
    only = SMALL.replace('name = "d"', 'name = "e"').replace('b = "d"', 'b = "e"').replace('a = "d"', 'a = "e"')
    found = {change.id: change for change in differences(SMALL, only)}
    assert "number 4 is that of node d" in found["e"].refused


def test_a_description_is_written_as_it_was_read() -> None:
    for path in (ROOT / "deploy/berlin-bonn.toml", ROOT / "tests/network/small.toml"):
        description = load_description(path)
        assert described(to_toml(description)) == description


def configs(text: str, present: dict[str, ServiceConfig]) -> dict[str, ServiceConfig]:
    return {service.name.id: service.config for service in services(described(text), random_bytes, _known(present))}


def test_what_stays_keeps_its_labels_and_ports() -> None:
    before = configs(SMALL, {})
    assert configs(SMALL, before) == before
    first = LINKS + SMALL[SMALL.index("[[link]]") :]  # the new links come before all others
    changed = BIGGER[: BIGGER.index("[[link]]")] + first.replace("[[customer]]", "\n[[customer]]", 1)
    after = configs(changed, before)
    for name, config in before.items():
        latter = after[name]
        if isinstance(config, QkdmConfig) and isinstance(latter, QkdmConfig):
            assert {module.link: module for module in config.module}.items() <= {
                module.link: module for module in latter.module
            }.items()
            addresses = [module.address for module in latter.module]
            assert len(addresses) == len(set(addresses))
    assert after["ckms-m"] == before["ckms-m"]  # its path is the detour now, under the labels that it had
    (off,) = [config for name, config in after.items() if name == "ckms-d"]
    assert isinstance(off, CkmsConfig)
    assert off.entry == []


NAMES = ["a", "b", "d", "e", "f", "g", "m"]


@st.composite
def networks(draw: st.DrawFn) -> str:
    """The small network with other carrier nodes and links between them."""
    pairs = [(a, b) for at, a in enumerate(NAMES) for b in NAMES[at + 1 :]]
    spine = draw(st.permutations(NAMES[2:]))[: draw(st.integers(0, 3))]
    row = [tuple(sorted(pair)) for pair in pairwise(["a", *spine, "b"])]
    chosen = list(dict.fromkeys([*row, *draw(st.lists(st.sampled_from(pairs), max_size=6))]))
    there = {name for pair in row for name in pair}
    chosen = [pair for pair in chosen if there.issuperset(pair)]
    extra = [pair for pair in chosen if pair not in row]
    off = draw(st.sets(st.sampled_from(extra), max_size=2)) if extra else set()
    text = SMALL[: SMALL.index("[[node]]")]
    for number, site in enumerate(("west", "east"), 90):
        text += f'[[node]]\nname = "{site}"\nnumber = {number}\nroles = ["ukms"]\n'
    for name in sorted(there):
        roles = '["akms", "ckms"]' if name in "ab" else '["ckms"]'
        text += f'[[node]]\nname = "{name}"\nnumber = {NAMES.index(name) + 1}\nroles = {roles}\n'
    text += '[[node]]\nname = "dc"\nnumber = 100\nroles = ["aaa"]\n'
    for a, b in [("west", "a"), *draw(st.permutations(chosen)), ("b", "east")]:
        enabled = "enabled = false\n" if (a, b) in off else ""
        text += f'[[link]]\na = "{a}"\nb = "{b}"\nkm = 3\nskr = 1000\n{enabled}'
    return text + SMALL[SMALL.index("[[customer]]") :]


class Walker:
    """Sends batches over configurations of which each node may be at another step."""

    def __init__(self, at: dict[str, CkmsConfig]) -> None:
        self._at = at

    def arrives(self, start: str, path: int) -> bool:
        first = self._at[start].path[path]
        here, previous, label = first.next, start, first.label
        while True:
            if not self._crosses(previous, here):
                return False
            found = [e for e in self._at[here].entry if (e.previous, e.label) == (previous, label)]
            if len(found) != 1:
                return False
            if found[0].next is None or found[0].next_label is None:
                return here == first.destination
            here, previous, label = found[0].next, here, found[0].next_label

    def _crosses(self, one: str, other: str) -> bool:
        ends = ((one, other), (other, one))
        return all(
            any(link.neighbour == there and link.enabled for link in self._at[here].link) for here, there in ends
        )


@settings(max_examples=60, deadline=None)
@given(networks(), networks(), st.randoms(use_true_random=False))
def test_at_every_moment_of_a_change_every_path_leads_to_its_end(
    first: str, second: str, chance: random.Random
) -> None:
    """Whatever nodes have taken a step and whatever have not, and also where the change breaks off and another one
    begins."""
    present = configs(first, {})
    for text in (second, first):
        target = services(described(text), random_bytes, _known(present))
        steps = transition(present, target)
        at = dict(present)
        for step in (steps.joined, steps.switched, steps.left):
            names = [name for name in step if isinstance(step[name], CkmsConfig)]
            chance.shuffle(names)
            for name in names:
                at[name] = msgspec.structs.replace(step[name])
                _all_arrive(at)
            if text == second and chance.random() < 0.3:
                break
        present = {**present, **at}
    finished = {service.name.id: service.config for service in target}
    for name, config in finished.items():
        if isinstance(config, CkmsConfig):
            left = at[name]
            assert isinstance(left, CkmsConfig)
            assert ([link.id for link in left.link], left.entry, left.path) == (
                [link.id for link in config.link], config.entry, config.path
            )  # fmt: skip


def _known(present: dict[str, ServiceConfig]) -> Former:
    carriers = {name[5:]: one for name, one in present.items() if isinstance(one, CkmsConfig)}
    modules = {name[5:]: one for name, one in present.items() if isinstance(one, QkdmConfig)}
    return former(carriers, modules)


def _all_arrive(at: dict[str, ServiceConfig]) -> None:
    carriers = {name: config for name, config in at.items() if isinstance(config, CkmsConfig)}
    walker = Walker(carriers)
    for name, config in carriers.items():
        for number in range(len(config.path)):
            assert walker.arrives(name, number), (name, config.path[number])
