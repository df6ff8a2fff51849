"""Epochs that survive, and revocations that reach the AKMSs concerned."""

from __future__ import annotations

from typing import Any

import pytest

from keyhaul.keys.grants import verify
from keyhaul.transport.messages.aaa import Authorise, Changes, ChangesReply, Revocation
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.operations import AAA_AUTHORISE, AAA_CHANGES


async def changes(bench: Any, akms: str = "akms-2", since: int = 0) -> ChangesReply:
    reply = await bench.call(akms, AAA_CHANGES, Changes(since=since))
    assert isinstance(reply, ChangesReply)
    return reply


async def grant_id(bench: Any, master: str = "first-berlin-1", *slaves: str) -> str:
    request = Authorise(ukms="ukms-1", master=master, slaves=list(slaves) or ["first-bonn-1"])
    return verify(await bench.call("akms-2", AAA_AUTHORISE, request), bench.key.public_key()).id


async def permitted(bench: Any, *slaves: str) -> bool:
    try:
        await grant_id(bench, "first-berlin-1", *slaves)
    except ServiceError as error:
        return error.code is not ErrorCode.NOT_PERMITTED
    return True


async def test_the_epoch_counts_time_served_and_survives_restarts(bench: Any) -> None:
    assert (await changes(bench)).epoch == 1
    bench.monotonic = 3_000.0
    await bench.service.pass_time()
    bench.restart()
    bench.monotonic += 599.0
    await bench.service.pass_time()
    assert (await changes(bench)).epoch == 1
    bench.monotonic += 2.0
    await bench.service.pass_time()
    assert (await changes(bench)).epoch == 2
    bench.monotonic += 10 * 3_600.0
    await bench.service.pass_time()

    assert (await changes(bench)).epoch == bench.service.epoch == 12


async def test_no_epoch_passes_while_aaa_is_down(bench: Any) -> None:
    bench.monotonic += 100 * 3_600.0
    bench.restart()
    await bench.service.load()
    await bench.service.pass_time()

    assert bench.service.epoch == 1


async def test_a_right_that_vanished_from_the_file_is_revoked_with_its_grants(bench: Any) -> None:
    gone = await grant_id(bench, "first-berlin-1", "first-bonn-2")
    stays = await grant_id(bench, "first-berlin-1", "first-bonn-1")
    text = bench.text.replace('peers = ["first-bonn-1", "first-bonn-2"]', 'peers = ["first-bonn-1"]')

    assert bench.load(text) == 1
    reply = await changes(bench)
    assert reply.revocations == [Revocation(1, "first-berlin-1", ["first-bonn-2"], [gone])]
    assert stays not in reply.revocations[0].grants
    assert reply.serial == 1
    assert not await permitted(bench, "first-bonn-2")
    assert await permitted(bench, "first-bonn-1")


async def test_a_repeated_import_revokes_nothing(bench: Any) -> None:
    assert bench.load(bench.text) == 0
    assert (await changes(bench)).revocations == []


async def test_a_master_with_other_terms_needs_new_grants(bench: Any) -> None:
    old = await grant_id(bench)
    assert bench.load(bench.text.replace('class = "gold"', 'class = "silver"')) == 2

    first, *_ = (await changes(bench)).revocations
    assert (first.master, first.slaves, first.grants) == ("first-berlin-1", [], [old])
    assert await permitted(bench, "first-bonn-1")


async def test_only_what_one_has_not_heard_is_told(bench: Any) -> None:
    bench.load(bench.text.replace('peers = ["second-bonn"]', ""))
    reply = await changes(bench)
    assert len(reply.revocations) == 1

    again = await changes(bench, since=reply.serial)
    assert (again.serial, again.revocations) == (reply.serial, [])
    ahead = await changes(bench, since=reply.serial + 5)
    assert (ahead.serial, len(ahead.revocations)) == (reply.serial, 1)


async def test_an_akms_hears_only_what_concerns_it(bench: Any) -> None:
    bench.load(bench.text.replace('peers = ["second-bonn"]', ""))

    assert len((await changes(bench, "akms-14")).revocations) == 1
    stranger = await changes(bench, "akms-77")
    assert (stranger.serial, stranger.revocations) == (1, [])


async def test_an_operator_revokes_until_restored_whatever_is_imported(bench: Any) -> None:
    held = await grant_id(bench)
    done = await bench.runtime.commands["revoke"]({"master": "first-berlin-1", "slaves": ["first-bonn-1"]})
    assert done["serial"] == 1
    assert (await changes(bench)).revocations == [Revocation(1, "first-berlin-1", ["first-bonn-1"], [held])]
    assert not await permitted(bench, "first-bonn-1")
    bench.load(bench.text)
    assert not await permitted(bench, "first-bonn-1")
    assert await permitted(bench, "first-bonn-2")

    await bench.runtime.commands["restore"]({"master": "first-berlin-1"})
    assert await permitted(bench, "first-bonn-1")


async def test_a_master_can_lose_everything(bench: Any) -> None:
    await bench.runtime.commands["revoke"]({"master": "first-berlin-1"})
    await bench.runtime.commands["revoke"]({"master": "probe-berlin"})

    assert not await permitted(bench, "first-bonn-1")
    with pytest.raises(ServiceError):
        await grant_id(bench, "probe-berlin", "probe-berlin")


@pytest.mark.parametrize("arguments", [{"master": "nobody"}, {"master": "first-berlin-1", "slaves": ["second-bonn"]}])
async def test_what_is_no_right_cannot_be_revoked(bench: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(LookupError):
        await bench.runtime.commands["revoke"](arguments)
    assert (await changes(bench)).serial == 0
