"""The plan that controllers read: the carrier of a description, nothing of users, and never half a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keyhaul.config.carrier import MAXIMUM_BYTES, CarrierPlan, decode, encode, load
from keyhaul.config.controllers import carrier_plan
from keyhaul.config.description import Description
from keyhaul.config.description_checks import load_description
from keyhaul.config.loader import ConfigurationError, read

ROOT = Path(__file__).parents[3]
SMALL = (ROOT / "tests/network/small.toml").read_text()
FILE = Path("plan.json")


def plan(text: str = SMALL) -> CarrierPlan:
    return carrier_plan(read(text.encode(), Description, Path("network.toml")))


def told(changed: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        decode(json.dumps(changed).encode(), FILE)
    return [str(problem) for problem in caught.value.problems]


def as_json() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(encode(plan()))
    return content


def test_berlin_bonn_without_its_sites() -> None:
    found = carrier_plan(load_description(ROOT / "deploy/berlin-bonn.toml"))
    assert [node.id for node in found.nodes] == [f"ckms-{number}" for number in (*range(2, 15), 16)]
    assert {node.id for node in found.nodes if node.access} == {"ckms-2", "ckms-14"}
    assert len(found.links) == 14
    (bottleneck,) = (link for link in found.links if link.id == "9-10")
    assert (bottleneck.a, bottleneck.b, bottleneck.rate, bottleneck.km) == ("ckms-9", "ckms-10", 300, 98)
    assert bottleneck.capacity == 8 * (65_536 + 2_048)
    assert bottleneck.suites == ("aes-256-gcm", "otp")
    assert all(link.quantum for link in found.links)
    assert found.nodes[0].target == "127.16.0.2:9339"


def test_no_user_stands_in_it() -> None:
    content = encode(carrier_plan(load_description(ROOT / "deploy/berlin-bonn.toml"))).decode()
    for name in ("ukms", "akms", "aaa", "sae", "customer", "first", "second", "probe", "contract", 'ckms-1"', "1-2"):
        assert name not in content.replace("11-12", ""), name


def test_what_the_description_says_of_fates_laws_pools_and_places() -> None:
    text = SMALL.replace(
        'a = "a"\nb = "m"', 'a = "a"\nb = "m"\npool = 4096\nrisk_groups = ["bridge", "duct 7"]'
    ).replace("number = 3\n", 'number = 3\njurisdiction = "DE"\nagent = "192.0.2.3:9339"\n')
    found = plan(text)
    (node,) = (node for node in found.nodes if node.id == "ckms-m")
    assert (node.jurisdiction, node.target) == ("DE", "192.0.2.3:9339")
    (link,) = (link for link in found.links if link.id == "a-m")
    assert link.risk_groups == ("bridge", "duct 7")
    assert link.capacity == 8 * (4_096 + 2_048)


def test_a_plan_comes_back_from_its_file_and_the_same_description_makes_the_same_file(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_bytes(encode(plan()))
    assert load(file) == (plan(), encode(plan()))
    assert encode(decode(encode(plan()), FILE)) == encode(plan())


def test_all_that_is_wrong_is_told_at_once() -> None:
    content = as_json()
    content["nodes"].append(dict(content["nodes"][0], target="nowhere"))
    content["links"][0] |= {"b": "ckms-x", "suites": []}
    content["links"].append(dict(content["links"][1], id="again", b=content["links"][1]["a"]))
    content["links"].append(dict(content["links"][2], a=content["links"][2]["b"], b=content["links"][2]["a"]))
    problems = told(content)
    for expected in (
        '[nodes] id: "ckms-a" stands there 2 times',
        '[nodes 5] target: "nowhere" is no address',
        '[links 1] b: "ckms-x" is no node of the plan',
        "[links 1] suites: empty",
        f'[links 5] b: "{content["links"][4]["a"]}" is the other end as well',
        f'[links] id: "{content["links"][5]["id"]}" stands there 2 times',
        "[links] a and b:",
    ):
        assert any(problem.startswith(expected) for problem in problems), (expected, problems)


@pytest.mark.parametrize(
    ("table", "field", "value"),
    [
        ("links", "rate", -1),
        ("links", "rate", 2**63),
        ("links", "rate", "fast"),
        ("links", "km", -1),
        ("links", "suites", ["rot13"]),
        ("links", "colour", "red"),
        ("links", "a", "akms-2"),
        ("links", "id", "../x"),
        ("nodes", "id", "ckms-"),
        ("nodes", "id", "ckms-a\n"),
        ("nodes", "target", 9339),
        ("nodes", "access", "yes"),
    ],
)
def test_a_field_that_cannot_be_is_refused(table: str, field: str, value: Any) -> None:
    content = as_json()
    content[table][0][field] = value
    (problem,) = told(content)
    assert "is no plan of a network" in problem


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"v": 1, "network": "n", "nodes": [], "links": []}']
)
def test_what_is_no_plan_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigurationError):
        decode(content, FILE)


def test_a_later_version_is_refused_and_what_to_do_is_told() -> None:
    assert told(as_json() | {"v": 2}) == [
        "v: version 2 is not known here (1 is): make the plan anew by keyhaul network plan"
    ]


def test_files_that_are_absent_or_too_great_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load(tmp_path / "absent")
    with (tmp_path / "great").open("wb") as file:
        file.truncate(MAXIMUM_BYTES + 1)
    with pytest.raises(ConfigurationError, match="greater than"):
        load(tmp_path / "great")
