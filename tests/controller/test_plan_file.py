"""The plan's file makes the planned network; what its checks let through is always a network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.plan_file import PlanFile, load_plan
from controller.planned import PlannedLink, PlannedNode, planned
from keyhaul.config.carrier import CarrierLink, CarrierNode, CarrierPlan, decode, encode
from keyhaul.config.problems import ConfigurationError

NODES = tuple(CarrierNode(id=f"ckms-{name}", target="127.0.0.1:9339") for name in "abcd")
LINK = CarrierLink(
    id="a-b",
    a="ckms-a",
    b="ckms-b",
    rate=2_000,
    capacity=524_288,
    suites=("otp", "aes-256-gcm"),
    risk_groups=("bridge",),
    km=12.5,
)


def test_everything_that_the_file_says_is_in_the_network(tmp_path: Path) -> None:
    access = CarrierNode(id="ckms-a", target="127.0.0.1:9339", access=True, jurisdiction="DE", place="Bonn")
    content = encode(CarrierPlan(network="n", nodes=(access, *NODES[1:]), links=(LINK,)))
    (tmp_path / "plan.json").write_bytes(content)
    network, digest = load_plan(tmp_path / "plan.json")
    assert network.nodes[0] == PlannedNode("ckms-a", True, "DE", "Bonn", "127.0.0.1:9339")
    assert [node.access for node in network.nodes] == [True, False, False, False]
    assert network.links == (
        PlannedLink(
            "a-b",
            "ckms-a",
            "ckms-b",
            quantum=True,
            rate=2_000,
            capacity=524_288,
            suites=frozenset({"otp", "aes-256-gcm"}),
            risk_groups=frozenset({"bridge"}),
            km=12.5,
        ),
    )
    assert digest == hashlib.sha256(content).hexdigest()


def test_a_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="is no plan of a network"):
        load_plan(tmp_path / "plan.json")


def test_a_file_that_was_replaced_is_read_again_and_each_time_once(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"

    def put(content: bytes) -> None:
        beside = tmp_path / "beside"
        beside.write_bytes(content)
        beside.replace(path)

    file = PlanFile(path)
    with pytest.raises(ConfigurationError, match="No such file"):
        file.read()
    assert not file.changed()
    put(b"{}")
    assert file.changed()
    with pytest.raises(ConfigurationError, match="is no plan of a network"):
        file.read()
    assert not file.changed()
    put(encode(CarrierPlan(network="n", nodes=NODES, links=())))
    assert file.changed()
    first = file.read()
    assert not file.changed()
    put(encode(CarrierPlan(network="n", nodes=NODES[:1], links=())))
    assert file.changed()
    assert file.read().digest != first.digest


ENDS = st.sampled_from(["ckms-a", "ckms-b", "ckms-c", "ckms-x"])
LINKS = st.builds(
    lambda name, a, b: msgspec.structs.replace(LINK, id=name, a=a, b=b), st.sampled_from("pqrs"), ENDS, ENDS
)


@given(nodes=st.lists(st.sampled_from(NODES), max_size=5), links=st.lists(LINKS, max_size=3))
def test_a_plan_is_refused_by_its_file_or_makes_a_network(nodes: list[CarrierNode], links: list[CarrierLink]) -> None:
    content = encode(CarrierPlan(network="n", nodes=tuple(nodes), links=tuple(links)))
    try:
        plan = decode(content, Path("plan.json"))
    except ConfigurationError:
        return
    network = planned(plan.nodes, plan.links)
    assert [node.id for node in network.nodes] == [node.id for node in nodes]
    assert [link.id for link in network.links] == [link.id for link in links]
