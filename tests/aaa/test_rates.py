"""A contract's rate, burst and weight: imported, shown, granted; and what an answer that was lost had promised."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from aaa.administration import show
from aaa.database import open_database
from aaa.import_file import parse
from keyhaul.config.problems import ConfigurationError
from keyhaul.keys.grants import InvalidGrant, sign, verify
from keyhaul.transport.messages.aaa import Authorise, Grant, Usage, UsageRecord
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.operations import AAA_AUTHORISE, AAA_USAGE

BRONZE = 'id = "second/bronze"'


def with_terms(bench: Any, terms: str) -> str:
    return str(bench.text).replace(BRONZE, f"{BRONZE}\n{terms}")


async def granted(bench: Any, request: str = "") -> Grant:
    asked = Authorise(ukms="ukms-1", master="second-berlin", slaves=["second-bonn"], request=request)
    return verify(await bench.call("akms-2", AAA_AUTHORISE, asked), bench.key.public_key())


@pytest.mark.parametrize(
    ("terms", "rate", "burst", "weight"),
    [
        ("", 0.0, 0, 1),
        ("rate = 2.5", 2.5, 100, 1),
        ("rate = 500", 500.0, 500, 1),
        ("rate = 500\nburst = 2000\nweight = 4", 500.0, 2000, 4),
    ],
)
async def test_a_grant_carries_the_rate_of_its_contract(
    bench: Any, terms: str, rate: float, burst: int, weight: int
) -> None:
    bench.load(with_terms(bench, terms))
    grant = await granted(bench)
    assert (grant.contract, grant.rate, grant.burst, grant.weight) == ("second/bronze", rate, burst, weight)


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ("rate = -1.0", "[contract 2] rate"),
        ("rate = nan", "[contract 2] rate"),
        ("burst = 500", "[contract 2] burst: given, but there is no rate"),
        ("rate = 10\nburst = 99", "[contract 2] burst: 99 is not allowed"),
        ("weight = 0", "[contract 2] weight"),
    ],
)
def test_an_impossible_rate_is_told_with_its_place(bench: Any, terms: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse(with_terms(bench, terms).encode(), Path("aaa.toml"))
    assert says in str(error.value)


async def test_another_rate_ends_the_grants_on_the_old_one_and_is_shown(bench: Any) -> None:
    await granted(bench)
    assert bench.load(with_terms(bench, "rate = 20")) == 2
    rows = bench.database.transact(lambda connection: show(connection, {"what": "contracts"}, int(bench.now)))["rows"]
    assert [(row["id"], row["rate"], row["burst"]) for row in rows][-1] == ("second/bronze", 20.0, 100)


@pytest.mark.parametrize("wrong", [{"rate": -1.0}, {"rate": float("inf")}, {"weight": 0}, {"rate": 5.0, "burst": 0}])
async def test_a_grant_of_an_impossible_rate_is_invalid_even_if_signed(bench: Any, wrong: dict[str, Any]) -> None:
    grant = await granted(bench)
    for name, value in wrong.items():
        setattr(grant, name, value)
    with pytest.raises(InvalidGrant):
        verify(sign(grant, bench.key), bench.key.public_key())


async def test_an_answer_that_was_lost_keeps_nothing_of_the_quota(bench: Any) -> None:
    """The same request again takes the place of the first; other requests have their own share."""
    allowances = [(await granted(bench, "a" * 32)).allowance for _ in range(20)]
    assert set(allowances) == {250}
    assert (await granted(bench, "b" * 32)).allowance < 250
    used = (await granted(bench, "c" * 32)).id
    record = UsageRecord("d" * 32, used, [uuid.uuid4()], 256, 0)
    await bench.call("akms-2", AAA_USAGE, Usage(records=[record]))
    before = (await granted(bench)).allowance
    await granted(bench, "c" * 32)
    shown = bench.database.transact(lambda connection: show(connection, {"what": "grants"}, int(bench.now)))["rows"]
    assert not next(row for row in shown if row["id"] == used)["revoked"]
    assert before > 0


async def test_without_names_every_request_takes_its_share(bench: Any) -> None:
    """As it is with AKMSs that give none."""
    allowances = [(await granted(bench)).allowance for _ in range(3)]
    assert allowances[0] > allowances[1] > allowances[2]


async def test_a_malformed_name_is_refused(bench: Any) -> None:
    with pytest.raises(ServiceError) as refused:
        await granted(bench, "x")
    assert refused.value.code is ErrorCode.MALFORMED


async def test_a_database_of_the_release_before_has_contracts_without_limits(bench: Any, tmp_path: Path) -> None:
    """What stood there before is as it was; the columns' defaults serve the release before, too."""
    first = tmp_path / "first"
    first.mkdir()
    old = open_database("sqlite:///aaa.db", first)
    statements = [
        "DROP INDEX ix_grants_request",
        "ALTER TABLE grants DROP COLUMN request",
        "ALTER TABLE grants DROP COLUMN ukms",
        *(f"ALTER TABLE contracts DROP COLUMN {name}" for name in ("rate", "burst", "weight")),
        "UPDATE alembic_version SET version_num = '0001'",
        "INSERT INTO customers VALUES ('c', '')",
        "INSERT INTO contracts VALUES ('c/x', 'c', 'gold', 0, '[]', 256, 64, 1024, 128, 0)",
    ]
    old.transact(lambda connection: [connection.execute(text(statement)) for statement in statements])
    old.close()
    new = open_database("sqlite:///aaa.db", first)
    (row,) = new.transact(lambda connection: show(connection, {"what": "contracts"}, 0))["rows"]
    assert (row["rate"], row["burst"], row["weight"]) == (0.0, 0, 1)
    new.close()
