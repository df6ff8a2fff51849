"""An import file is taken whole, or refused with everything that is wrong in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aaa.administration import SHOWN, show
from aaa.import_file import parse
from keyhaul.config.plan import subscribers
from keyhaul.config.problems import ConfigurationError
from keyhaul.config.writer import to_toml


def wrong(text: str) -> str:
    with pytest.raises(ConfigurationError) as error:
        parse(text.encode(), Path("aaa.toml"))
    return str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('class = "bronze"', 'class = "tin"', '[contract 2] class: "tin" is not allowed'),
        ("quota = 1000", "quota = -1", "[contract 2] quota"),
        ("quota = 1000", "quota = 1000\nextra = 1", "[contract 2] extra: unknown"),
        ("sizes = [128, 256]", "sizes = [128]", "[contract 1] default_size: 256 is not one of sizes"),
        ("sizes = [128, 256]", "sizes = [128, 256, 4096]", "[contract 1] sizes: 4096 is outside"),
        ("sizes = [128, 256]", "sizes = [100, 256]", "[contract 1] sizes"),
        ('kme = "kme-15"', 'kme = "kme-1"', "[site"),
        ('kme = "kme-15"', 'kme = "kme 15"', "[site 2] kme"),
        ('kme = "kme-15"', 'kme = "kme-15"\ncustomer = "third"', '[site 2] customer: "third" is no [[customer]]'),
        ('kme = "kme-15"', 'kme = "kme-15"\ncustomer = "first"', '[sae 5] ukms: "ukms-15" is the site of another'),
        ('akms = "akms-14"', 'akms = "ckms-14"', "[site 2] akms"),
        ('contract = "operator/probe"', 'contract = "operator/none"', "[sae 6] contract"),
        ('peers = ["second-berlin"]', 'peers = ["nobody"]', "[sae 5] peers"),
        ('peers = ["second-berlin"]', 'peers = ["first-bonn-1"]', '[sae 5] peers: "first-bonn-1" belongs to another'),
        ('peers = ["second-berlin"]', 'peers = ["second-bonn"]', "[sae 5] peers"),
        ('id = "second-bonn"', 'id = "second bonn"', "[sae 5] id"),
        ('[[customer]]\nid = "operator"', "", "[contract 3] customer"),
    ],
)
def test_an_error_is_told_with_table_and_field(bench: Any, old: str, new: str, says: str) -> None:
    assert old in bench.text
    assert says in wrong(bench.text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("community", "says"),
    [
        ('customer = "third"\nmembers = []', "customer"),
        ('customer = "first"\nmembers = ["nobody"]', '"nobody" is no [[sae]] here'),
        ('customer = "first"\nmembers = ["second-bonn"]', '"second-bonn" belongs to another customer'),
        ('customer = "first"\nmembers = ["first-bonn-1", "first-bonn-1"]', "members"),
    ],
)
def test_a_community_is_of_one_customer(bench: Any, community: str, says: str) -> None:
    assert says in wrong(f'{bench.text}\n[[community]]\nid = "c"\n{community}\n')


def test_all_errors_are_told_at_once(bench: Any) -> None:
    text = wrong(bench.text.replace('kme = "kme-15"', 'kme = "kme 15"').replace("sizes = [128, 256]", "sizes = [128]"))

    assert "[site 2] kme" in text
    assert "[contract 1] default_size" in text


def test_an_empty_file_would_take_everything_away_and_is_refused() -> None:
    assert "would leave nothing" in wrong("customer = []\ncontract = []\nsite = []\nsae = []\n")
    assert "is not TOML" in wrong("customer = ")


async def test_a_wrong_import_over_the_socket_changes_nothing(bench: Any) -> None:
    before = bench.database.transact(lambda connection: show(connection, {"what": "saes"}, 0))
    with pytest.raises(ValueError, match=r"aaa.toml: \[contract 2\] class"):
        await bench.runtime.commands["import"]({"text": bench.text.replace("bronze", "tin"), "name": "aaa.toml"})

    assert bench.database.transact(lambda connection: show(connection, {"what": "saes"}, 0)) == before


async def test_an_import_updates_what_was_there(bench: Any) -> None:
    text = bench.text.replace('id = "first-bonn-2"', 'id = "first-bonn-3"').replace(', "first-bonn-2"', "")
    done = await bench.runtime.commands["import"]({"text": text, "name": "aaa.toml"})
    shown = await bench.runtime.commands["show"]({"what": "saes"})

    assert done["counts"]["saes"] == 6
    assert done["revocations"] == 1
    assert [row["id"] for row in shown["rows"]].count("first-bonn-3") == 1
    by_id = {row["id"]: row for row in shown["rows"]}
    assert by_id["first-berlin-1"]["may_ask_for"] == ["first-bonn-1"]
    assert by_id["probe-berlin"]["may_ask_for"] == ["probe-berlin"]


@pytest.mark.parametrize("what", SHOWN)
async def test_everything_can_be_shown(bench: Any, what: str) -> None:
    shown = await bench.runtime.commands["show"]({"what": what})

    assert shown["what"] == what
    assert all(isinstance(row, dict) for row in shown["rows"])


async def test_what_is_not_there_cannot_be_shown(bench: Any) -> None:
    with pytest.raises(LookupError):
        await bench.runtime.commands["show"]({"what": "passwords"})


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("import", {}), ("import", {"text": 1, "name": "x"}), ("revoke", {}), ("revoke", {"master": "m", "slaves": "s"})],
)
async def test_arguments_of_a_wrong_type_are_refused(bench: Any, command: str, arguments: dict[str, Any]) -> None:
    with pytest.raises((ValueError, LookupError)):
        await bench.runtime.commands[command](arguments)


def test_the_file_that_a_network_description_gives_is_taken() -> None:
    from keyhaul.config.description_checks import load_description

    path = Path(__file__).parents[2] / "deploy" / "berlin-bonn.toml"
    if not path.exists():
        pytest.skip("no description here")
    parsed = parse(to_toml(subscribers(load_description(path))).encode(), Path("aaa.toml"))
    assert len(parsed.sae) >= 6
