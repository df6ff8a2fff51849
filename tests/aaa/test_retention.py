"""Old rows go, in small portions; what is young, and the sums of each day, stay."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import func, select

from aaa import retention
from aaa.administration import show
from aaa.retention import purge
from aaa.schema import grants, revocations, usage, usage_keys
from keyhaul.keys.grants import verify
from keyhaul.transport.messages.aaa import Authorise, Changes, Usage, UsageRecord
from keyhaul.transport.operations import AAA_AUTHORISE, AAA_CHANGES, AAA_USAGE

DAY = 86_400


async def used(bench: Any, batches: int, keys: int = 2) -> None:
    asked = Authorise(ukms="ukms-1", master="first-berlin-1", slaves=["first-bonn-1"])
    grant = verify(await bench.call("akms-2", AAA_AUTHORISE, asked), bench.key.public_key())
    records = [
        UsageRecord(uuid.uuid4().hex, grant.id, [uuid.uuid4() for _ in range(keys)], 256, 0) for _ in range(batches)
    ]
    await bench.call("akms-2", AAA_USAGE, Usage(records=records))


def numbers(bench: Any) -> dict[str, int]:
    return {
        table.name: bench.database.transact(
            lambda connection, table=table: connection.scalar(select(func.count()).select_from(table))
        )
        for table in (usage, usage_keys, grants, revocations)
    }


def days(bench: Any) -> list[int]:
    shown = bench.database.transact(lambda connection: show(connection, {"what": "usage"}, int(bench.now)))
    return [row["delivered"] for row in shown["rows"]]


async def test_what_is_too_old_goes_and_the_sums_stay(bench: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(retention, "PORTION", 3)
    await used(bench, 10)
    bench.load(bench.text.replace('peers = ["first-berlin-1"]', ""))
    bench.now += 300 * DAY
    await used(bench, 4)
    before = numbers(bench)
    assert before == {"usage": 14, "usage_keys": 28, "grants": 2, "revocations": 1}
    assert await bench.service.purge_portion() == 0

    bench.now += 101 * DAY
    portions = []
    while deleted := await bench.service.purge_portion():
        portions.append(deleted)
    assert portions == [9, 9, 9, 3, 2]
    assert numbers(bench) == {"usage": 4, "usage_keys": 8, "grants": 1, "revocations": 0}
    assert days(bench) == [8, 20]
    reply = await bench.call("akms-2", AAA_CHANGES, Changes(since=0))
    assert (reply.serial, reply.revocations) == (1, [])


async def test_a_grant_that_a_young_record_names_stays(bench: Any) -> None:
    asked = Authorise(ukms="ukms-1", master="first-berlin-1", slaves=["first-bonn-1"])
    grant = verify(await bench.call("akms-2", AAA_AUTHORISE, asked), bench.key.public_key())
    bench.now += 399 * DAY
    record = UsageRecord(uuid.uuid4().hex, grant.id, [uuid.uuid4()], 256, 0)
    await bench.call("akms-2", AAA_USAGE, Usage(records=[record]))
    bench.now += 100 * DAY
    assert bench.database.transact(lambda connection: purge(connection, 400, int(bench.now))) == 0
    assert numbers(bench)["grants"] == 1
