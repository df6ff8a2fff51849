"""Paths and forwarding entries that `network init` writes: a class that is named has labels and buckets of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keyhaul.config.description import Description
from keyhaul.config.description_checks import load_description
from keyhaul.config.loader import ConfigurationError, read
from keyhaul.config.plan import services, subscribers
from keyhaul.config.services import CARRIER_RATE, CkmsConfig, ForwardingEntry
from keyhaul.config.writer import to_toml
from keyhaul.randomness import random_bytes

ROOT = Path(__file__).parents[3]
SMALL = (ROOT / "tests/network/small.toml").read_text()


def planned(text: str) -> dict[str, CkmsConfig]:
    description = read(text.encode(), Description, Path("network.toml"))
    found = services(description, random_bytes)
    return {one.name.id: one.config for one in found if isinstance(one.config, CkmsConfig)}


def walked(configs: dict[str, CkmsConfig], start: str, destination: str, service_class: str | None) -> list[Any]:
    """The path of first rank of a class and the entries along it, to the end."""
    (path,) = [
        path
        for path in configs[start].path
        if (path.destination, path.rank, path.service_class) == (destination, 0, service_class)
    ]
    steps: list[Any] = [path]
    here, previous, label = path.next, start, path.label
    while True:
        (entry,) = [one for one in configs[here].entry if (one.previous, one.label) == (previous, label)]
        steps.append(entry)
        if entry.next is None or entry.next_label is None:
            assert here == destination
            return steps
        here, previous, label = entry.next, here, entry.next_label


def test_where_nothing_is_said_one_path_serves_all_classes_at_the_usual_rate() -> None:
    configs = planned(SMALL)
    steps = walked(configs, "ckms-a", "ckms-b", None)
    assert {(step.service_class, step.rate, step.burst) for step in steps} == {(None, CARRIER_RATE, CARRIER_RATE)}
    assert "rate" not in to_toml(configs["ckms-m"]).split("[[entry]]", 1)[1]


CLASSES = """
[[carrier]]
class = "gold"
rate = 50_000
burst = 90_000

[[carrier]]
rate = 200_000
"""


def test_a_named_class_has_paths_of_its_own_and_a_link_may_be_tighter() -> None:
    a_to_m = 'a = "a"\nb = "m"\nkm = 20\nskr = 100_000\n'
    tight = a_to_m + '\n[[link.carrier]]\nclass = "gold"\nrate = 1_000\n'
    configs = planned(SMALL.replace(a_to_m, tight) + CLASSES)
    path, at_m, at_b = walked(configs, "ckms-a", "ckms-b", "gold")
    assert [(step.rate, step.burst) for step in (path, at_m, at_b)] == [(1000, 4096), (1000, 4096), (50_000, 90_000)]
    path, at_m, at_b = walked(configs, "ckms-a", "ckms-b", None)
    assert [(step.rate, step.burst) for step in (path, at_m, at_b)] == [(200_000, 200_000)] * 3
    labels = [entry.label for config in configs.values() for entry in config.entry]
    assert len(labels) == len(set(labels)) == 2 * len([e for c in planned(SMALL).values() for e in c.entry])


def test_entries_are_read_back_as_they_were_written() -> None:
    for config in planned(SMALL + CLASSES).values():
        text = to_toml(config).encode()
        again: list[ForwardingEntry] = read(text, CkmsConfig, Path("config.toml")).entry
        assert again == config.entry


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ('[[carrier]]\nclass = "tin"', "class"),
        ('[[carrier]]\nclass = "gold"\nrate = 0', "rate"),
        ('[[carrier]]\nclass = "gold"\n[[carrier]]\nclass = "gold"', 'class: "gold" stands there 2 times'),
        ("[[carrier]]\nburst = -1", "burst"),
    ],
)
def test_an_impossible_class_is_told(tmp_path: Path, extra: str, says: str) -> None:
    (tmp_path / "network.toml").write_text(f"{SMALL}\n{extra}\n")
    with pytest.raises(ConfigurationError) as error:
        load_description(tmp_path / "network.toml")
    assert says in str(error.value)


def test_a_contracts_rate_reaches_the_import_file() -> None:
    text = SMALL.replace('class = "gold"', 'class = "gold"\nrate = 2.5\nburst = 300\nweight = 3')
    found = subscribers(read(text.encode(), Description, Path("network.toml"))).contract
    assert [(one.rate, one.burst, one.weight) for one in found] == [(0.0, 0, 1), (2.5, 300, 3), (0.0, 0, 1)]


@pytest.mark.parametrize("wrong", ["rate = -1.0", "burst = 500", "rate = 5\nburst = 100", "weight = 101"])
def test_an_impossible_contract_is_told(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "network.toml").write_text(SMALL.replace('class = "gold"', f'class = "gold"\n{wrong}'))
    with pytest.raises(ConfigurationError):
        load_description(tmp_path / "network.toml")
