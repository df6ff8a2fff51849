"""What a CKMS tells its controller of its parts, held to both YANG modules."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest

from keyhaul.agents.gnmi import values
from keyhaul.agents.gnmi.models import ckms, etsi015
from keyhaul.agents.gnmi.schema import Schema
from keyhaul.agents.gnmi.tree import DataTree
from keyhaul.agents.statements import StatedHop
from keyhaul.identity.names import NodeId, Role, ServiceName
from keyhaul.link.interface import DirectionStatus, LinkStatus
from keyhaul.randomness import random_bytes
from keyhaul.transport.messages.relay import Forward, Submit
from services.ckms.agent.etsi015 import QkdNode, link_uuid, node_uuid
from services.ckms.agent.facts import CarrierFacts, Node, TellingLink
from services.ckms.choice import PathChoice
from services.ckms.forwarding import Entry, Hop, Path, PathLabel
from services.ckms.held import Held, HighWater
from services.ckms.installed import Installed
from services.ckms.policing import Limit
from services.ckms.relay import Relay
from tests.keyhaul.agents.gnmi.yang import both_models, own_model, validate, with_etsi
from tests.services.ckms.stated import Configured, Leader, Memory, accept, entry, make, path, withdrawal

DOMAIN = "lab.example"


class FakeLink:
    """A link as its status tells it."""

    def __init__(self, neighbour: str) -> None:
        self.neighbour = ServiceName(DOMAIN, Role.CKMS, NodeId(neighbour))
        self.up = True
        self.state = "up"
        self.rate = 2_000
        self.qber: float | None = 0.021
        self.round_trip: float | None = 0.000_48
        self.answers = True

    def status(self) -> LinkStatus:
        return LinkStatus(
            link=f"2-{self.neighbour.node}",
            neighbour=self.neighbour.id,
            state=self.state,
            suite="aes-256-gcm" if self.state == "up" else "",
            suites=("otp", "aes-256-gcm"),
            connected=True,
            sessions_total=1,
            rejected_total=0,
            outgoing=DirectionStatus(60_000, 2_000, 12, 500, 20, 62_520),
            incoming=DirectionStatus(10, 1_000, 1, 0, 0, 1_010),
            floor="aes-256-gcm",
            configured=("otp", "aes-256-gcm"),
            chosen=False,
        )

    def telling(self, number: int = 1) -> TellingLink:
        return TellingLink(
            self,  # type: ignore[arg-type]  # of a link only its status is told
            67_584,
            rate=lambda: self.rate,
            qber=lambda: self.qber,
            round_trip=lambda: self.round_trip,
            module_answers=lambda: self.answers,
            number=number,
        )


class Steering:
    """Statements in force under a clock."""

    hard_limit = 604_800.0

    def __init__(self, installed: Installed, now: Callable[[], float]) -> None:
        self._installed = installed
        self.now = now

    @property
    def high(self) -> HighWater:
        return self._installed.high

    @property
    def held(self) -> Mapping[int, Held]:
        return self._installed.held


STATIC = Configured(
    entries=(Entry(PathLabel("e" * 16), "ckms-3", None),),
    paths=(Path("ckms-9", 1, Hop("ckms-4", PathLabel("f" * 16)), "silver", Limit(2_000.5, 4_000)),),
)


class Telling:
    """A CKMS under a clock, and the tree that it tells."""

    def __init__(self, *, steered: bool = True) -> None:
        self.clock = 100.0
        self.links = {name: FakeLink(name) for name in ("1", "3")}
        self.installed, self.table = make(STATIC)
        self.installed.incarnation = "0123456789abcdef"
        self.memory = Memory()
        self.leader = Leader(incarnation="0123456789abcdef")
        self.relay = Relay(self.table, PathChoice(), random_bytes)
        telling = [link.telling(number) for number, link in enumerate(self.links.values(), 1)]
        steering = Steering(self.installed, lambda: self.clock) if steered else None
        node = Node("ckms-2", "0.1.0", "00" * 16)
        facts = CarrierFacts(node, telling, self.relay, self.table, steering, lambda: self.clock)
        own = ServiceName(DOMAIN, Role.CKMS, NodeId("2"))
        sources = {
            f"/{ckms.TOP}": facts.service,
            f"/{ckms.TOP}/links": facts.links,
            f"/{ckms.TOP}/relay": facts.relay,
            f"/{ckms.TOP}/forwarding": facts.forwarding,
            f"/{etsi015.TOP}": QkdNode(own, "0.1.0", telling, self.table).members,
        }
        self.tree = DataTree(Schema([ckms.MODULE, etsi015.MODULE]), sources)

    def say(self, *says: Any, lifetime: int = 100) -> None:
        accept(self.installed, self.memory, self.leader.say(*says, lifetime=lifetime), self.clock)

    def told(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What stands in both modules, as plain JSON."""
        raw = json.loads(values.encoded((), self.tree.schema.root, self.tree.refresh(), ietf=False))
        return raw[ckms.TOP], raw[etsi015.TOP]


def test_a_link_is_told_with_both_pools() -> None:
    telling = Telling()
    first, _ = telling.told()[0]["links"]["link"]
    assert first == {
        "neighbour": "ckms-1",
        "id": "2-1",
        "up": True,
        "enabled": True,
        "quantum": True,
        "suite": "aes-256-gcm",
        "suites": ["otp", "aes-256-gcm"],
        "rate": 2_000,
        "qber": 0.021,
        "latency": 480,
        "pool": [
            {
                "direction": "outgoing",
                "available": 62_000,
                "capacity": 67_584,
                "reserve": 2_000,
                "bytes-in": 62_520,
                "bytes-used": 500,
                "bytes-burned": 20,
            },
            {
                "direction": "incoming",
                "available": 1_010,
                "capacity": 67_584,
                "reserve": 1_000,
                "bytes-in": 1_010,
                "bytes-used": 0,
                "bytes-burned": 0,
            },
        ],
    }


def test_what_is_not_known_is_not_told() -> None:
    telling = Telling()
    link = telling.links["1"]
    link.up, link.state, link.qber, link.round_trip = False, "disabled", None, None
    first, _ = telling.told()[0]["links"]["link"]
    assert (first["up"], first["enabled"]) == (False, False)
    assert not {"suite", "qber", "latency"} & first.keys()


def test_entries_tell_what_they_carried_and_what_is_left_of_them() -> None:
    telling = Telling()
    telling.say(entry("a", to="ckms-3", service_class="gold"), path("b", to="ckms-3"))
    for batch in range(3):
        message = Forward(label="a" * 16, reference=f"{batch:016x}", batch=f"{batch:032x}", remaining_ms=5_000)
        telling.relay.forward("ckms-1", message, bytes(400), 0.0)
    submit = Submit(batch="9" * 32, destination="ckms-9", bits=bytes(64), service_class="gold", remaining_ms=5_000)
    telling.relay.submit(submit, lambda *_: True, 0.0)
    telling.clock += 60.9
    forwarding = telling.told()[0]["forwarding"]
    static, stated = forwarding["entry"]
    assert (stated["previous"], stated["label"], stated["next"], stated["next-label"]) == (
        "ckms-1",
        "a" * 16,
        "ckms-3",
        "a" * 16,
    )
    assert (stated["batches"], stated["bytes"], stated["refused"]) == (2, 800, 1)
    assert (stated["serial"], stated["remaining"], stated["service-class"]) == (1, 30, "gold")
    assert static == {
        "previous": "ckms-3",
        "label": "e" * 16,
        "rate": 8_388_608,
        "burst": 8_388_608,
        "batches": 0,
        "bytes": 0,
        "refused": 0,
    }
    first, second = forwarding["path"]
    assert (first["origin"], first["service-class"], first["group"], first["bytes"]) == (
        "statement",
        "any",
        "0" * 32,
        64,
    )
    assert (second["origin"], second["service-class"], second["rate"]) == ("configuration", "silver", 2_000)
    assert "remaining" not in second
    assert telling.told()[0]["relay"]["submitted"] == 1


def test_what_is_left_of_a_lifetime_is_told_to_the_second_at_its_end() -> None:
    telling = Telling()
    telling.say(entry("a"))
    for passed, left in ((0.5, 90), (89.5, 10), (4.0, 6), (6.0, 0), (50.0, 0)):
        telling.clock += passed
        assert telling.told()[0]["forwarding"]["entry"][1]["remaining"] == left


def test_a_table_that_stays_is_not_looked_at_all_the_time_and_one_that_changes_is_told_at_once() -> None:
    telling = Telling()
    telling.say(entry("a"))
    telling.tree.refresh()
    message = Forward(label="a" * 16, reference="1" * 16, batch="1" * 32, remaining_ms=5_000)
    telling.relay.forward("ckms-1", message, bytes(400), 0.0)
    telling.clock += 0.5
    assert telling.told()[0]["forwarding"]["entry"][1]["batches"] == 0
    telling.say(entry("b"))
    assert [each["batches"] for each in telling.told()[0]["forwarding"]["entry"]] == [0, 1, 0]
    telling.clock += 1.0
    telling.relay.forward("ckms-1", msgspec.structs.replace(message, reference="2" * 16), bytes(400), 0.0)
    assert telling.told()[0]["forwarding"]["entry"][1]["batches"] == 2


def test_statements_are_told_as_they_were_signed_and_go_when_they_end() -> None:
    telling = Telling()
    telling.say(entry("a"), path("b"))
    forwarding = telling.told()[0]["forwarding"]
    assert (forwarding["epoch"], forwarding["serial"], forwarding["in-doubt"]) == (1, 2, False)
    assert [statement["serial"] for statement in forwarding["statement"]] == [1, 2]
    telling.say(withdrawal(2))
    forwarding = telling.told()[0]["forwarding"]
    assert forwarding["serial"] == 3
    assert [statement["serial"] for statement in forwarding["statement"]] == [1]
    assert [each["origin"] for each in forwarding["path"]] == ["configuration"]
    telling.say(withdrawal(1, drain=8.0))
    forwarding = telling.told()[0]["forwarding"]
    assert forwarding["statement"] == []
    assert [each.get("remaining") for each in forwarding["entry"]] == [None, 8]
    assert [each.get("serial") for each in forwarding["entry"]] == [None, None]


def test_who_is_not_steered_tells_so() -> None:
    forwarding = Telling(steered=False).told()[0]["forwarding"]
    assert not {"epoch", "serial", "in-doubt", "hard-limit", "statement"} & forwarding.keys()


def test_the_standards_node_names_no_application_but_relaying() -> None:
    telling = Telling()
    telling.say(entry("a", to="ckms-3"))
    telling.links["3"].answers = False
    node = telling.told()[1]
    ours, theirs = (ServiceName(DOMAIN, Role.CKMS, NodeId(name)) for name in ("2", "3"))
    assert node["qkdn_id"] == node_uuid(ours)
    (application,) = node["qkd_applications"]["qkd_app"]
    assert (application["app_type"], len(application["backing_qkdl_id"])) == ("INTERNAL", 2)
    assert [each["qkdi_status"] for each in node["qkd_interfaces"]["qkd_interface"]] == ["ENABLED", "FAILED"]
    _, link = node["qkd_links"]["qkd_link"]
    assert (link["qkdl_id"], link["qkdl_status"]) == (link_uuid(DOMAIN, "2-3"), "ACTIVE")
    assert link["qkdl_remote"]["qkdn_id"] == node_uuid(theirs)
    performance = link["qkdl_performance"]
    assert (performance["skr"], performance["expected_consumption"], performance["eskr"]) == (2_000, 8_000, 0)


@pytest.mark.parametrize(
    ("state", "up", "status"),
    [
        ("up", False, "PASSIVE"),
        ("down", False, "PASSIVE"),
        ("cut", False, "PASSIVE"),
        ("disabled", False, "OFF"),
        ("establishing", True, "PENDING"),
    ],
)
def test_the_standards_link_has_its_states(state: str, up: bool, status: str) -> None:
    telling = Telling()
    telling.links["1"].state, telling.links["1"].up = state, up
    link, _ = telling.told()[1]["qkd_links"]["qkd_link"]
    assert link["qkdl_status"] == status
    assert link["qkdl_enable"] is (state != "disabled")


def full() -> Telling:
    telling = Telling()
    telling.say(entry("a", detour=StatedHop("ckms-4", "c" * 16)), path("b"), path("d", rank=1))
    return telling


def test_what_is_told_is_as_the_module_has_it() -> None:
    tree = full().tree
    data = {ckms.TOP: tree.refresh()[ckms.TOP]}
    validate(own_model(), values.encoded((), tree.schema.root, data, ietf=True))


@with_etsi
def test_what_is_told_is_as_both_modules_have_it() -> None:
    tree = full().tree
    validate(both_models(), values.encoded((), tree.schema.root, tree.refresh(), ietf=True))
