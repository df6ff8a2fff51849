"""A network description is refused with everything that is wrong in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyhaul.config.description import Description
from keyhaul.config.description_checks import load_description
from keyhaul.config.loader import ConfigurationError, read
from keyhaul.config.routes import hops_of
from keyhaul.identity.names import Role

ROOT = Path(__file__).parents[3]
SMALL = (ROOT / "tests/network/small.toml").read_text()


def told(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(text.encode(), Description, Path("network.toml"))
    return [str(problem) for problem in caught.value.problems]


def test_berlin_bonn_is_923_km_in_twelve_carrier_hops_with_a_detour_past_8_9() -> None:
    network = load_description(ROOT / "deploy/berlin-bonn.toml")
    chain = [link for link in network.link if "16" not in link.hop]
    assert sum(link.km for link in chain) == 923
    assert len(chain) == 14
    for ends in (("2", "14"), ("14", "2")):
        first, detour = network.carrier().ranked(*ends)
        assert len(hops_of(first)) == 12
        assert "16" not in first
        assert frozenset(("8", "9")) not in hops_of(detour)
        assert len(hops_of(detour)) == 13


def test_berlin_bonn_has_the_published_rates_and_marks_the_others() -> None:
    network = load_description(ROOT / "deploy/berlin-bonn.toml")
    published = {link.id: network.rate(link) for link in network.link if not link.assumed}
    assert published == {
        "4-5": 2_000,
        "7-8": 22_700,
        "8-9": 1_200,
        "9-10": 300,
        "10-11": 21_300,
        "11-12": 2_200,
        "12-13": 11_800,
        "13-14": 2_000,
    }
    assert {network.rate(link) for link in network.link if link.assumed} == {2_000}


def test_berlin_bonn_has_its_customers_at_both_ends_and_a_probe_at_each_site() -> None:
    network = load_description(ROOT / "deploy/berlin-bonn.toml")
    count = {(sae.customer, sae.node): 0 for sae in network.sae}
    for sae in network.sae:
        count[sae.customer, sae.node] += 1
    assert count == {
        ("first", "1"): 2,
        ("first", "15"): 2,
        ("second", "1"): 1,
        ("second", "15"): 1,
        ("operator", "1"): 1,
        ("operator", "15"): 1,
    }
    assert {sae.id for sae in network.sae if sae.loopback} == {"probe-berlin", "probe-bonn"}
    (master,) = (sae for sae in network.sae if sae.id == "first-berlin-1")
    assert network.peers_of(master) == ["first-berlin-2", "first-bonn-1", "first-bonn-2"]
    assert network.suites(network.link[0]) == (["aes-256-gcm", "otp"], "aes-256-gcm")


def test_all_errors_come_at_once() -> None:
    text = (
        SMALL.replace('loopback = "127.20.0.0"', 'loopback = "10.0.0.0"')
        .replace('b = "m"\nkm = 20', 'b = "nowhere"\nkm = 0')
        .replace('name = "east"\nnumber = 6\nroles = ["ukms"]', 'name = "east"\nnumber = 5\nroles = ["ukms", "ckms"]')
        .replace('id = "first-west-2"\nnode = "west"', 'id = "first-west-1"\nnode = "m"')
        .replace('class = "bronze"\nloopback = true', 'class = "bronze"\nquota = -1')
        .replace('id = "second-west-1"', 'id = "second-west-1"\npeers = ["first-east-1", "nobody", "second-west-1"]')
    )
    problems = told(text)
    for expected in (
        '[network] loopback: "10.0.0.0" is no loopback address',
        '[link 2] b: "nowhere" is no node',
        "[link 2] km: 0.0 is too little" if "km: 0.0" in "".join(problems) else "[link 2] km: 0 is too little",
        '[node] number: "5" stands there 2 times',
        "[node 6] roles: a UKMS stands at a user's site",
        '[sae] id: "first-west-1" stands there 2 times',
        '[sae 2] node: "m" has no UKMS',
        "[customer 3.contract 1] quota: -1 is too little",
        '[sae 7] loopback: the contract "probe" has no loopback',
        '[sae 5] peers: "first-east-1" is of another customer',
        '[sae 5] peers: "nobody" is no SAE',
        '[sae 5] peers: "second-west-1" is itself',
    ):
        assert any(problem.startswith(expected) for problem in problems), (expected, problems)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('a = "m"\nb = "b"', 'a = "a"\nb = "m"', '"a-m" stands there 2 times'),
        ('a = "b"\nb = "east"', 'a = "m"\nb = "east"', "[link 6] m-east connects no two KMSs"),
        ('roles = ["aaa"]', 'roles = ["ckms"]', "exactly one node has the role aaa"),
        ('number = 4\nroles = ["ckms"]', 'number = 4\nroles = ["akms"]', "an AKMS needs a CKMS at its node"),
        ("km = 5\nskr = 100_000", "km = 5", "skr: missing (a rate in bits per second, or assumed = true)"),
        ("km = 5\nskr = 100_000", "km = 5\nskr = 1\nassumed = true", "skr: given, and marked as assumed"),
        ("km = 5\nskr = 100_000", "km = 5\nskr = 1\nqber = 5", "qber: 5 is not allowed"),
        ("km = 5\nskr = 100_000", 'km = 5\nskr = 1\nsuites = ["otp"]', '"aes-256-gcm" is not in suites'),
        ("stock = 60.0", "key_size = 100", "key_size: 100 is not allowed"),
        ('customer = "second"', 'customer = "third"', '"third" is no customer'),
        ('customer = "second"', 'customer = "second"\ncontract = "tin"', "names no contract of second (one of gold)"),
        ('class = "gold"', 'class = "tin"', '"tin" is not allowed ("bronze", "gold", "silver", "split")'),
        ('class = "gold"', "default_size = 2048", "default_size: 2048 is outside of 64 to 1024"),
        ('class = "gold"', "sizes = [128]", "default_size: 256 is not in sizes"),
        ('class = "gold"', "maximum_keys_per_request = 2000", "2000 is not allowed (1 to 1024)"),
        ('id = "first-west-1"', 'id = "a/b"', '"a/b" is no SAE ID'),
        ("number = 1\n", "number = 0\n", "number: 0 is not allowed"),
        ("number = 3\n", 'number = 3\nagent = "there"\n', '[node 3] agent: "there" is no address'),
        (
            "number = 1\n",
            'number = 1\nagent = "127.0.0.1:1"\n',
            "agent: given, but there is no CKMS",
        ),
        ("km = 5\nskr = 100_000", "km = 5\nskr = 1\npool = 100", "pool: 100 is too little (at least 1024)"),
        ("km = 5\nskr = 100_000", 'km = 5\nskr = 1\nrisk_groups = ["d", "d"]', 'risk_groups: "d" stands there 2 times'),
        ("km = 5\nskr = 100_000", 'km = 5\nskr = 1\nrisk_groups = [""]', "risk_groups: an empty name"),
        (
            'number = 3\nroles = ["ckms"]',
            'number = 3\nroles = ["ckms", "controller", "controller"]',
            '"controller" stands',
        ),
        ('roles = ["ukms"]', 'roles = ["ukms", "controller"]', "a UKMS stands at a user's site"),
        ("[modules]", '[controller]\ndatabase = "here"\n[modules]', "[controller] database: no URL of a database"),
        ("[modules]", "[controller]\nhard_limit = 0\n[modules]", "[controller] hard_limit: 0 is too little"),
        ('roles = ["akms", "ckms"]', 'roles = ["akms", "ckms", "controller"]', "they share a PostgreSQL database"),
    ],
)
def test_each_error_is_told(old: str, new: str, expected: str) -> None:
    assert old in SMALL
    assert any(expected in problem for problem in told(SMALL.replace(old, new)))


def test_nodes_without_a_way_between_them_are_told() -> None:
    island = '[[node]]\nname = "island"\nnumber = 7\nroles = ["ckms"]\n\n[[customer]]'
    assert told(SMALL.replace("[[customer]]", island, 1)) == [
        '[node 8] no links lead from "a" to "island" (all CKMSs are connected)'
    ]
    site = '[[node]]\nname = "site"\nnumber = 7\nroles = ["ukms"]\n\n[[customer]]'
    assert told(SMALL.replace("[[customer]]", site, 1)) == [
        '[node 8] roles: the UKMS of "site" has 0 links (one, to its AKMS)'
    ]


def test_the_small_network_has_a_detour() -> None:
    network = load_description(ROOT / "tests/network/small.toml")
    assert network.carrier().ranked("a", "b") == [("a", "m", "b"), ("a", "d", "b")]
    assert network.host("east") == "127.20.0.6"
    assert [node.name for node in network.with_role(Role.AKMS)] == ["a", "b"]
