"""Each delivered key stands in exactly one record, whatever comes twice."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from sqlalchemy import update

from aaa.administration import show
from aaa.schema import grants
from keyhaul.keys.grants import verify
from keyhaul.transport.messages.aaa import Authorise, Grant, Usage, UsageChange, UsageRecord
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.operations import AAA_AUTHORISE, AAA_USAGE

BATCH = "b" * 32


async def granted(bench: Any, akms: str = "akms-2", **request: Any) -> Grant:
    request = request or {"ukms": "ukms-1", "master": "second-berlin", "slaves": ["second-bonn"]}
    return verify(await bench.call(akms, AAA_AUTHORISE, Authorise(**request)), bench.key.public_key())


def record(grant: str, number: int = 3, batch: str = BATCH, *, age_ms: int = 0) -> UsageRecord:
    return UsageRecord(batch, grant, [uuid.uuid4() for _ in range(number)], 256, age_ms)


async def tell(bench: Any, *records: UsageRecord, changes: tuple[UsageChange, ...] = (), akms: str = "akms-2") -> None:
    await bench.call(akms, AAA_USAGE, Usage(records=list(records), changes=list(changes)))


async def refused(bench: Any, *records: UsageRecord, **arguments: Any) -> ServiceError:
    with pytest.raises(ServiceError) as error:
        await tell(bench, *records, **arguments)
    return error.value


def days(bench: Any) -> list[dict[str, Any]]:
    shown = bench.database.transact(lambda connection: show(connection, {"what": "usage"}, int(bench.now)))
    return [{name: row[name] for name in ("contract", "delivered", "expired")} for row in shown["rows"]]


def delivered(number: int, expired: int = 0) -> list[dict[str, Any]]:
    return [{"contract": "second/bronze", "delivered": number, "expired": expired}]


async def test_a_record_is_counted_once_however_often_it_comes(bench: Any) -> None:
    used = record((await granted(bench)).id)
    for _ in range(3):
        await tell(bench, used)
    bench.restart()
    await tell(bench, used)

    assert days(bench) == delivered(3)
    assert bench.runtime.alarms == []


async def test_many_records_and_changes_come_in_one_message(bench: Any) -> None:
    grant = (await granted(bench)).id
    records = [record(grant, 40, f"{number:032x}") for number in range(5)]
    change = UsageChange(records[0].batch, "void", records[0].key_ids)
    await tell(bench, *records, changes=(change,))
    await tell(bench, *records, changes=(change,))

    assert days(bench) == delivered(160)


async def test_void_reverses_the_count_once(bench: Any) -> None:
    used = record((await granted(bench)).id)
    await tell(bench, used)
    for _ in range(2):
        await tell(bench, changes=(UsageChange(BATCH, "void", used.key_ids[:2]),))

    assert days(bench) == delivered(1)
    assert bench.metric("keyhaul_aaa_keys_total", change="void") == 2


async def test_expired_keys_were_delivered_and_are_marked(bench: Any) -> None:
    used = record((await granted(bench)).id)
    await tell(bench, used)
    await tell(bench, changes=(UsageChange(BATCH, "expired", used.key_ids[:2]),))
    assert days(bench) == delivered(3, expired=2)

    await tell(bench, changes=(UsageChange(BATCH, "void", used.key_ids),))
    assert days(bench) == delivered(0, expired=0)
    await tell(bench, changes=(UsageChange(BATCH, "expired", used.key_ids),))
    assert days(bench) == delivered(0, expired=0)


async def test_usage_counts_for_the_day_of_the_release(bench: Any) -> None:
    grant = (await granted(bench)).id
    await tell(bench, record(grant, 2), record(grant, 5, "c" * 32, age_ms=86_400_000))

    assert [day["delivered"] for day in days(bench)] == [2, 5]


async def test_what_was_delivered_is_no_promise_any_more_and_counts_for_the_quota(bench: Any) -> None:
    grant = await granted(bench)
    assert grant.allowance == 250
    await tell(bench, record(grant.id, 250))
    assert (await granted(bench)).allowance == 188  # a quarter of 1000 - 250

    bench.now += 86_400
    assert (await granted(bench)).allowance == 250


async def test_a_grant_never_issued_or_of_another_akms_is_refused_and_alarmed(bench: Any) -> None:
    grant = (await granted(bench)).id
    never = await refused(bench, record("0" * 32))
    stolen = await refused(bench, record(grant), akms="akms-14")

    assert never.code is stolen.code is ErrorCode.NOT_PERMITTED
    assert BATCH in never.message
    assert [name for name, _ in bench.runtime.alarms] == ["usage-refused", "usage-refused"]
    assert days(bench) == []


async def test_one_bad_record_does_not_keep_the_others_from_being_counted(bench: Any) -> None:
    grant = (await granted(bench)).id
    bad = record("0" * 32, batch="e" * 32)
    error = await refused(bench, record(grant), bad, record(grant, 4, "c" * 32))

    assert error.message == f"refused: {'e' * 32}"
    assert days(bench) == delivered(7)


async def test_a_key_cannot_stand_in_two_records(bench: Any) -> None:
    grant = (await granted(bench)).id
    used = record(grant)
    await tell(bench, used)
    again = UsageRecord("c" * 32, grant, used.key_ids[:1], 256, 0)
    other = record(grant)

    assert (await refused(bench, again)).code is ErrorCode.NOT_PERMITTED
    assert (await refused(bench, other)).code is ErrorCode.NOT_PERMITTED  # same name, other keys
    assert days(bench) == delivered(3)


async def test_changes_to_what_is_not_ones_own_are_refused(bench: Any) -> None:
    used = record((await granted(bench)).id)
    await tell(bench, used)

    for change, akms in (
        (UsageChange("9" * 32, "void", used.key_ids), "akms-2"),
        (UsageChange(BATCH, "void", used.key_ids), "akms-14"),
        (UsageChange(BATCH, "void", [uuid.uuid4()]), "akms-2"),
    ):
        assert (await refused(bench, changes=(change,), akms=akms)).code is ErrorCode.NOT_PERMITTED
    assert days(bench) == delivered(3)


async def test_more_than_the_allowance_is_counted_and_alarmed(bench: Any) -> None:
    await tell(bench, record((await granted(bench)).id, 251))

    assert days(bench) == delivered(251)
    assert [name for name, _ in bench.runtime.alarms] == ["usage-above-allowance"]


@pytest.mark.parametrize(
    ("records", "changes"),
    [
        ([UsageRecord("short", "0" * 32, [uuid.uuid4()], 256, 0)], []),
        ([UsageRecord(BATCH, "0" * 32, [], 256, 0)], []),
        ([UsageRecord(BATCH, "0" * 32, [uuid.uuid4()], 0, 0)], []),
        ([UsageRecord(BATCH, "0" * 32, [uuid.uuid4()], 256, -1)], []),
        ([UsageRecord(BATCH, "0" * 32, [uuid.UUID(int=1)] * 2, 256, 0)], []),
        ([], [UsageChange(BATCH, "gift", [uuid.uuid4()])]),
    ],
)
async def test_nonsense_is_malformed(bench: Any, records: list[UsageRecord], changes: list[UsageChange]) -> None:
    with pytest.raises(ServiceError) as error:
        await bench.call("akms-2", AAA_USAGE, Usage(records=records, changes=changes))
    assert error.value.code is ErrorCode.MALFORMED


@pytest.mark.parametrize("size", [0, -8, 65_544, 2**64, 10**400])
async def test_a_size_that_no_key_has_is_malformed(bench: Any, size: int) -> None:
    used = record((await granted(bench)).id)
    used.size = size
    assert (await refused(bench, used)).code is ErrorCode.MALFORMED
    assert days(bench) == []


@pytest.mark.parametrize("change", ["expired", "void"])
async def test_a_change_counts_by_the_word_of_the_masters_ukms_alone(bench: Any, change: str) -> None:
    """Another one may know the batch's name and its keys' IDs. The release before does not say whose it is."""
    used = record((await granted(bench)).id)
    await tell(bench, used)
    error = await refused(bench, changes=(UsageChange(BATCH, change, used.key_ids, "ukms-2"),))

    assert error.code is ErrorCode.NOT_PERMITTED
    assert days(bench) == delivered(3)
    assert bench.runtime.alarms[-1][1]["fault"] == "its keys are of another UKMS"

    await tell(bench, changes=(UsageChange(BATCH, change, used.key_ids[:1], "ukms-1"),))
    await tell(bench, changes=(UsageChange(BATCH, change, used.key_ids[1:2]),))
    assert days(bench) == (delivered(3, expired=2) if change == "expired" else delivered(1))


async def test_of_a_grant_that_the_release_before_issued_no_ukms_is_known(bench: Any) -> None:
    used = record((await granted(bench)).id)
    await tell(bench, used)
    bench.database.transact(lambda connection: connection.execute(update(grants).values(ukms=None)))
    await tell(bench, changes=(UsageChange(BATCH, "expired", used.key_ids, "ukms-1"),))

    assert days(bench) == delivered(3, expired=3)
