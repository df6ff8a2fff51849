"""Modules over real sockets: mutual TLS, the channel, cut and restore, restart."""

from __future__ import annotations

import asyncio
import socket
import stat
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from keyhaul.keys.etsi014 import KEYS_NOT_FOUND
from keyhaul.transport.etsi014 import Client014, Etsi014Error, Etsi014Unreachable
from keyhaul.transport.tls import classic_client
from services.qkdm.channel import UnusablePath
from services.qkdm.condition import Change
from services.qkdm.module import Module
from tests.services.qkdm.conftest import Laboratory, until


async def stocked(a: Client014, b: Client014) -> None:
    async def both() -> bool:
        counts = [(await a.status("kms-b")).stored_key_count, (await b.status("kms-a")).stored_key_count]
        return min(counts) >= 5

    await until(both)


async def test_a_status_tells_rate_and_error_ratio_and_no_rate_of_a_link_that_is_cut(laboratory: Laboratory) -> None:
    async def told(kme: Client014, slave: str) -> dict[str, float]:
        return (await kme.status(slave)).status_extension  # type: ignore[return-value]

    async with laboratory.pair() as (module, _, a, b):
        await stocked(a, b)
        for kme, slave in ((a, "kms-b"), (b, "kms-a")):
            figures = await told(kme, slave)
            assert figures["secret_key_rate"] > 0
            assert 0 <= figures["qber"] < 0.11
        await module.change(Change("cut"))

        async def nothing() -> bool:
            return [(await told(a, "kms-b"))["secret_key_rate"], (await told(b, "kms-a"))["secret_key_rate"]] == [0, 0]

        await until(nothing)


async def test_both_ends_get_the_same_keys_in_both_directions(laboratory: Laboratory) -> None:
    async with laboratory.pair() as (_, _, a, b):
        await stocked(a, b)
        for master, slave, names in ((a, b, ("kms-a", "kms-b")), (b, a, ("kms-b", "kms-a"))):
            given = await master.get_key(names[1], number=5)
            ids = [key.key_ID for key in given.keys]
            fetched = await slave.get_key_with_ids(names[0], ids)
            assert [key.key for key in fetched.keys] == [key.key for key in given.keys]
            assert {len(key.key) for key in given.keys} == {32}
            with pytest.raises(Etsi014Error, match=KEYS_NOT_FOUND):
                await slave.get_key_with_ids(names[0], ids[:1])


async def test_missing_ids_are_found_by_halving(laboratory: Laboratory) -> None:
    async with laboratory.pair() as (_, _, a, b):
        await stocked(a, b)
        ids = [key.key_ID for key in (await a.get_key("kms-b", number=5)).keys]
        absent = uuid4()
        missing = []
        refusals = set()
        parts = [[*ids[:3], absent, *ids[3:]]]
        got = []
        while parts:
            part = parts.pop()
            try:
                got += [key.key_ID for key in (await b.get_key_with_ids("kms-a", part)).keys]
            except Etsi014Error as error:
                refusals.add((error.status, error.message))
                if len(part) == 1:
                    missing += part
                else:
                    parts += [part[: len(part) // 2], part[len(part) // 2 :]]
        assert refusals == {(400, KEYS_NOT_FOUND)}
        assert missing == [absent]
        assert set(got) == set(ids)


async def test_only_the_configured_sae_is_served(laboratory: Laboratory) -> None:
    laboratory.kms.issue("kms-c")
    async with laboratory.pair() as (module, _, _, _):
        stranger = laboratory.client(module, "kms-c")
        with pytest.raises(Etsi014Error) as caught:
            await stranger.get_key("kms-b")
        assert caught.value.status == 401
        await stranger.close()


async def test_a_certificate_of_another_authority_is_refused(laboratory: Laboratory) -> None:
    laboratory.modules.issue("kms-d")
    async with laboratory.pair() as (module, _, _, _):
        stranger = laboratory.client(module, "kms-d")
        with pytest.raises(Etsi014Unreachable):
            await stranger.status("kms-b")
        await stranger.close()


async def test_no_request_leaves_towards_another_kme(laboratory: Laboratory) -> None:
    async with laboratory.pair() as (module, _, _, _):
        client = laboratory.client(module, "kms-a", expected_kme="kme-b")
        with pytest.raises(Etsi014Unreachable, match="kme-b"):
            await client.get_key("kms-b")
        assert module.end.demand.given == module.end.demand.refused == 0
        await client.close()


async def test_cut_degrade_and_restore_from_either_end(laboratory: Laboratory) -> None:
    async with laboratory.pair() as (a, b, client, other):
        await stocked(client, other)
        await b.change(Change("cut"))
        assert a.facts()["cut"] is True
        await until(lambda: b.facts()["cut"] is True)
        before = a.facts()["generated"]
        with pytest.raises(Etsi014Error) as caught:
            while True:
                await client.get_key("kms-b", number=5)
        assert caught.value.status == 503
        assert caught.value.retry_after == 10
        assert a.facts()["generated"] == before
        await a.change(Change("restore"))
        await until(lambda: b.facts()["cut"] is False and a.facts()["generated"] > before)
        await b.change(Change("degrade", qber=0.2))
        await until(
            lambda: a.facts()["qber"] == b.facts()["qber"] == 0.2 and a.facts()["rate"] == b.facts()["rate"] == 0
        )
        with pytest.raises(ValueError, match="qber"):
            await b.change(Change("degrade", qber=7.0))


async def test_a_change_at_the_receiver_needs_the_transmitter(laboratory: Laboratory) -> None:
    async with laboratory.running("b") as module:
        with pytest.raises(ValueError, match="away"):
            await module.change(Change("cut"))


async def test_a_restarted_receiver_makes_the_transmitter_drop_what_only_it_has(laboratory: Laboratory) -> None:
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(laboratory.running("a", rate=1.0, stock=10_000.0))
        client = laboratory.client(a, "kms-a")
        stack.push_async_callback(client.close)
        async with laboratory.running("b"):
            await until(lambda: a.facts()["stored"]["enc_keys"] >= 5)
            given = await client.get_key("kms-b")
        async with laboratory.running("b") as b:
            await until(lambda: b.end.synchronised and a.end.synchronised)
            fresh = laboratory.client(b, "kms-b")
            stack.push_async_callback(fresh.close)
            with pytest.raises(Etsi014Error, match=KEYS_NOT_FOUND):
                await fresh.get_key_with_ids("kms-a", [given.keys[0].key_ID])
            await until(lambda: a.facts()["stored"] == {"enc_keys": 0, "dec_keys": 0})
            assert a.facts()["dropped"]["unsynchronised"] > 0


async def test_ends_of_different_key_sizes_never_come_into_step(laboratory: Laboratory) -> None:
    async with laboratory.running("a") as a, laboratory.running("b", key_size=128) as b:
        await until(lambda: "key_size" in a._mismatch and "key_size" in b._mismatch)
        assert not a.end.synchronised
        assert not b.end.synchronised


async def test_the_channel_is_for_this_user_only(laboratory: Laboratory) -> None:
    async with laboratory.running("a") as module:
        assert stat.S_IMODE(module.path.stat().st_mode) == 0o600
        with pytest.raises(UnusablePath, match="listens"):
            await laboratory.module("a").start()
    assert not module.path.exists()


async def test_a_file_in_the_channels_place_is_left_alone(laboratory: Laboratory) -> None:
    path = laboratory.directory / "channel"
    path.write_text("something else")
    with pytest.raises(UnusablePath, match="no socket"):
        await laboratory.module("a").start()
    assert path.read_text() == "something else"


async def test_a_stale_socket_is_replaced(laboratory: Laboratory) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(laboratory.directory / "channel"))
    async with laboratory.pair() as (_, _, a, b):
        await stocked(a, b)


async def test_rubbish_on_the_channel_changes_nothing(laboratory: Laboratory) -> None:
    async with laboratory.running("a") as a:
        for rubbish in (b"\xff" * 64, b"\0\0\0\1\xc1", b"GET / HTTP/1.1\r\n\r\n"):
            reader, writer = await asyncio.open_unix_connection(str(a.path))
            writer.write(rubbish)
            await reader.read()
            writer.close()
        async with laboratory.running("b") as b:
            await until(lambda: a.end.synchronised and b.end.synchronised and b.end.level > 0)


async def _post(laboratory: Laboratory, module: Module, head: bytes, body: bytes) -> bytes:
    directory = laboratory.directory
    tls = classic_client(directory / "kms-a.crt", directory / "kms-a.key", laboratory.modules.trust)
    reader, writer = await asyncio.open_connection(*module.address, ssl=tls)
    writer.write(head)
    writer.write(body)
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    "head", [b"Content-Length: 70000", b"Content-Length: 99999999999", b"Transfer-Encoding: chunked"]
)
async def test_huge_bodies_are_refused(laboratory: Laboratory, head: bytes) -> None:
    async with laboratory.running("a") as module:
        request = b"POST /api/v1/keys/kms-b/enc_keys HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n"
        body = (b"1000\r\n" + b" " * 4096 + b"\r\n") * 18
        answer = await _post(laboratory, module, request, body if b"chunked" in head else body[:70_000])
        assert answer.startswith(b"HTTP/1.1 413")
        assert b'"message"' in answer


async def test_connection_close_and_unknown_hosts_work(laboratory: Laboratory) -> None:
    async with laboratory.running("a") as module:
        request = b"GET /api/v1/keys/kms-b/status HTTP/1.1\r\nHost: who.example\r\nConnection: close\r\n\r\n"
        answer = await _post(laboratory, module, request, b"")
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"application/json" in answer


async def test_what_is_no_http_is_answered_in_the_same_format(laboratory: Laboratory) -> None:
    async with laboratory.running("a") as module:
        answer = await _post(laboratory, module, b"SECRET nonsense\r\n\r\n", b"")
        assert b" 400 " in answer.splitlines()[0]
        assert b'"message"' in answer
        assert b"SECRET" not in answer
