"""What an operator sets for a link at run time: durable, at either end, and never below the configuration's floor."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import structlog
from sqlalchemy import Column, Connection, Integer, MetaData, Table

from keyhaul.config.services import StoreSection
from keyhaul.link.protection.registry import UnknownSuite
from keyhaul.link.settings import LinkSettings, Settings
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.store.interface import Schema, StoreUnavailable
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from tests.keyhaul.link.pair import ECHO, Maker, Node, Pair, forward, restart, until


async def echoed(node: Node) -> bytes:
    return (await node.link.call(ECHO, forward(), b"there", deadline=5))[1]


async def refused(node: Node) -> ErrorCode:
    with pytest.raises(ServiceError) as error:
        await node.link.call(ECHO, forward(), b"nothing", deadline=0.2)
    return error.value.code


async def suite_of(ends: Pair, suite: str) -> None:
    """Wait until both ends are in a session of that suite."""
    for node in (ends.a, ends.b):
        await until(lambda node=node: node.link.status().suite == suite)


@pytest.mark.parametrize("end", ["a", "b"])
async def test_a_link_out_of_use_is_out_of_use_after_a_crash_and_comes_back_when_it_is_enabled(
    pair: Maker, end: str
) -> None:
    ends = await pair()
    node: Node = getattr(ends, end)
    await echoed(ends.a)
    await node.links.enable("8-9", False)
    for each in (ends.b, ends.a):
        await restart(each)
    assert node.link.status().state == "disabled"
    assert [await refused(each) for each in (ends.a, ends.b)] == [ErrorCode.UNREACHABLE] * 2

    await node.links.enable("8-9", True)
    assert await echoed(ends.a) == await echoed(ends.b) == b"ereht"
    await restart(node)
    assert await echoed(node) == b"ereht"


@pytest.mark.parametrize("end", ["a", "b"])
async def test_protections_that_were_set_count_after_a_crash_until_they_are_taken_back(pair: Maker, end: str) -> None:
    ends = await pair()
    node: Node = getattr(ends, end)
    await suite_of(ends, "otp")
    await node.links.protect("8-9", ["aes-256-gcm"])
    await suite_of(ends, "aes-256-gcm")
    for each in (ends.b, ends.a):
        await restart(each)
    await suite_of(ends, "aes-256-gcm")
    status = node.link.status()
    assert (status.suites, status.configured, status.chosen) == (("aes-256-gcm",), ("otp", "aes-256-gcm"), True)

    await node.links.protect("8-9", [])
    await suite_of(ends, "otp")
    await restart(node)
    await suite_of(ends, "otp")
    assert not node.link.status().chosen


async def test_a_floor_that_rose_meanwhile_wins_over_what_was_set(pair: Maker) -> None:
    ends = await pair({"suites": ["aes-256-gcm", "otp"]})
    await ends.a.links.protect("8-9", ["aes-256-gcm"])
    ends.a.changes["floor"] = "otp"
    with structlog.testing.capture_logs() as logged:
        await restart(ends.a)
    assert (ends.a.link.status().suites, ends.a.link.status().chosen) == (("otp",), False)
    assert [line["event"] for line in logged] == ["protections set at run time are not used"]
    await suite_of(ends, "otp")


async def test_of_what_was_set_only_what_reaches_the_floor_is_left(pair: Maker) -> None:
    ends = await pair()
    await ends.a.links.protect("8-9", ["aes-256-gcm", "otp"])
    ends.a.changes["floor"] = "otp"
    await restart(ends.a)
    assert (ends.a.link.status().suites, ends.a.link.status().chosen) == (("otp",), True)


async def test_what_was_refused_leaves_no_trace(pair: Maker) -> None:
    ends = await pair({"suites": ["otp"], "floor": "otp"})
    writes = ends.a.store.writes
    for wrong in (["aes-256-gcm"], ["rot13"]):
        with pytest.raises(UnknownSuite):
            await ends.a.links.protect("8-9", wrong)
    assert await LinkSettings(ends.a.store, "8-9").load() == Settings()
    assert ends.a.link._core.epoch == 0
    assert ends.a.store.writes >= writes


async def test_what_is_not_durable_does_not_count(pair: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = await pair()
    await echoed(ends.a)

    async def fail(_: LinkSettings, settings: Settings) -> None:
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(LinkSettings, "save", fail)
        with pytest.raises(StoreUnavailable):
            await ends.a.links.enable("8-9", False)
        with pytest.raises(StoreUnavailable):
            await ends.a.links.protect("8-9", ["aes-256-gcm"])
    assert ends.a.link.up
    assert ends.a.link.status().suites == ("otp", "aes-256-gcm")


async def test_settings_made_at_the_same_time_are_all_kept(pair: Maker) -> None:
    ends = await pair()
    await asyncio.gather(
        ends.a.links.protect("8-9", ["aes-256-gcm"]),
        ends.a.links.enable("8-9", False),
    )
    assert await LinkSettings(ends.a.store, "8-9").load() == Settings(enabled=False, suites=("aes-256-gcm",))


async def test_an_operator_who_gives_up_waiting_leaves_no_half_set_link(pair: Maker) -> None:
    ends = await pair()
    setting = asyncio.create_task(ends.a.links.enable("8-9", False))
    await asyncio.sleep(0)
    setting.cancel()
    await until(lambda: ends.a.link.status().state == "disabled")
    assert not (await LinkSettings(ends.a.store, "8-9").load()).enabled


async def test_a_cut_fibre_carries_nothing_and_is_whole_after_a_restart(pair: Maker) -> None:
    ends = await pair()
    await echoed(ends.a)
    ends.a.links.cut("8-9", True)
    assert ends.a.link.status().state == "cut"
    assert [await refused(each) for each in (ends.a, ends.b)] == [ErrorCode.UNREACHABLE] * 2
    await ends.a.links.enable("8-9", False)
    assert ends.a.link.status().state == "disabled"
    await ends.a.links.enable("8-9", True)
    assert ends.a.link.status().state == "cut"
    await restart(ends.a)
    assert await echoed(ends.a) == b"ereht"

    ends.b.links.cut("8-9", True)
    ends.b.links.cut("8-9", False)
    assert await echoed(ends.b) == b"ereht"


async def test_a_store_of_the_release_before_takes_settings_too(tmp_path: Path) -> None:
    metadata = MetaData()
    Table("link_direction", metadata, Column("number", Integer, primary_key=True))
    section = StoreSection(path="store.db", key_file="store.key")
    store = await EmbeddedStore.open(section, tmp_path, Schema("links", 1, metadata))
    settings = LinkSettings(store, "8-9")
    assert await settings.load() == Settings()
    await settings.save(Settings(suites=("otp",)))
    await LinkSettings(store, "7-8").save(Settings(enabled=False))
    await store.close()

    store = await EmbeddedStore.open(section, tmp_path, Schema("links", 1, metadata))
    assert await LinkSettings(store, "8-9").load() == Settings(suites=("otp",))
    await LinkSettings(store, "7-8").save(Settings())
    assert await store.read(_rows) == 1
    await store.close()


def _rows(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT count(*) FROM link_setting").scalar_one())
