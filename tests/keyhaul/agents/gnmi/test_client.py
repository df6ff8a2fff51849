"""The client against a real target: what calls bring, what errors are called, how silence is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from keyhaul.agents.gnmi import failures
from keyhaul.agents.gnmi.client import Client
from keyhaul.agents.gnmi.errors import Code
from keyhaul.agents.gnmi.models import ckms
from keyhaul.agents.gnmi.notices import Notice, Wanted
from keyhaul.agents.gnmi.paths import parse, text
from keyhaul.agents.gnmi.peers import Rpc
from keyhaul.identity.names import Role, ServiceName
from tests.keyhaul.agents.gnmi.carrier import STATEMENTS, Carrier
from tests.keyhaul.agents.gnmi.pki import service
from tests.keyhaul.agents.gnmi.running import Running, free_port, until, within

LINKS = f"/{ckms.TOP}/links/link"


async def test_get_brings_each_path_its_updates(running: Running) -> None:
    client = running.client()
    (links, epoch) = await client.get([LINKS, f"/{ckms.TOP}/forwarding/epoch"], deadline=5)
    assert [text(update.path) for update in links] == [f"{LINKS}[neighbour=ckms-8]", f"{LINKS}[neighbour=ckms-16]"]
    first = json.loads(links[0].value)
    assert first["keyhaul-ckms:rate"] == str(2**33)
    assert first["keyhaul-ckms:qber"] == "0.0213"
    assert [json.loads(update.value) for update in epoch] == ["3"]


async def test_a_set_takes_effect_or_says_why_not(running: Running, carrier: Carrier) -> None:
    client = running.client()
    good = {f"{STATEMENTS}[serial=18]": {"body": "e30=", "signature": "AAAA"}}
    assert await client.set(update=good, deadline=5) > 0
    assert carrier.book.held[18] == {"serial": 18, "body": b"{}", "signature": b"\0\0\0"}
    with pytest.raises(failures.RefusedByTarget) as caught:
        await client.set(update={f"{STATEMENTS}[serial=19]": {"body": "YmFk", "signature": "AAAA"}}, deadline=5)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert "not the controller's" in str(caught.value)
    with pytest.raises(failures.RefusedByTarget) as caught:
        await client.set(delete=[f"{STATEMENTS}[serial=18]"], deadline=5)
    assert caught.value.code is Code.PERMISSION_DENIED
    assert set(carrier.book.held) == {18}


async def test_a_subscription_tells_what_is_there_then_each_change(running: Running, carrier: Carrier) -> None:
    stream = running.client().subscribe([Wanted(LINKS, heartbeat=2.0)])
    seen = await within(anext(stream))
    assert {dict(update.path[-1].keys)["neighbour"] for update in seen.updates} == {"ckms-8", "ckms-16"}
    assert (await within(anext(stream))) == Notice(0, (), (), synced=True)
    carrier.links["ckms-8"]["up"] = False
    (update,) = (await within(anext(stream))).updates
    assert json.loads(update.value)["keyhaul-ckms:up"] is False
    del carrier.links["ckms-16"]
    assert (await within(anext(stream))).deletes == (parse(f"{LINKS}[neighbour=ckms-16]"),)
    await stream.aclose()


async def test_a_target_that_falls_silent_is_found(running: Running, carrier: Carrier) -> None:
    client = running.client()
    stream = client.subscribe([Wanted(LINKS, sample=0.1)], silence=2.0)
    assert (await within(anext(stream))).updates
    running.target._fresh = lambda: carrier.tree.snapshot()  # type: ignore[method-assign]
    carrier.links.clear()
    carrier.tree.refresh()
    with pytest.raises(failures.Silent, match="ckms-9"):
        while True:
            await within(anext(stream))


async def test_a_target_that_takes_connections_and_says_nothing_is_found(running: Running) -> None:
    client = running.client()
    with socket.create_server((running.host, 0)) as deaf:
        host, port = deaf.getsockname()
        async with Client(f"{host}:{port}", client.peer, running.twins.files(client.peer)) as frozen:
            with pytest.raises(failures.Silent):
                await within(anext(frozen.subscribe([Wanted(LINKS, sample=0.1)], silence=0.5)))
            with pytest.raises(failures.Late):
                await within(frozen.capabilities(deadline=0.5))


async def test_a_connection_that_is_given_up_ends_all_on_it_and_cancels_nobody(running: Running) -> None:
    client = running.client()

    async def listen() -> None:
        async for _ in client.subscribe([Wanted(LINKS, sample=0.1)]):
            heard.set()

    heard = asyncio.Event()
    tasks = [asyncio.create_task(listen()) for _ in range(2)]
    await within(heard.wait())
    await until(lambda: running.target.streams == 2)
    await client.close()
    for task in tasks:
        with pytest.raises(failures.Unreachable):
            await within(task)
    assert (await client.capabilities(deadline=5)).gNMI_version == "0.8.0"


async def test_who_is_cancelled_stays_cancelled(running: Running) -> None:
    client = running.client()
    stream = client.subscribe([Wanted(LINKS, heartbeat=2.0)])
    while not (await within(anext(stream))).synced:
        pass

    async def listen() -> None:
        await anext(stream)

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(listening)
    await until(lambda: running.target.streams == 0)


async def test_a_target_that_does_not_tell_the_key_agreement_is_not_believed(running: Running) -> None:
    admitted = running.target._admitted

    @contextlib.asynccontextmanager
    async def silently(rpc: Rpc, context: Any) -> AsyncIterator[ServiceName]:
        context = Quiet(context)
        async with admitted(rpc, context) as peer:
            yield peer

    class Quiet:
        def __init__(self, context: Any) -> None:
            self._context = context

        async def send_initial_metadata(self, _metadata: Any) -> None:
            return None

        def __getattr__(self, name: str) -> Any:
            return getattr(self._context, name)

    running.target._admitted = silently  # type: ignore[method-assign]
    client = running.client()
    with pytest.raises(failures.Unprotected):
        await client.capabilities(deadline=5)
    with pytest.raises(failures.Unprotected):
        await within(anext(client.subscribe([Wanted(LINKS, sample=0.1)])))


async def test_what_is_told_too_rarely_cannot_be_watched(running: Running) -> None:
    client = running.client()
    for wanted in (Wanted(LINKS), Wanted(LINKS, sample=4.0), Wanted(LINKS, sample=1.0, suppress_redundant=True)):
        with pytest.raises(ValueError):
            await anext(client.subscribe([wanted]))


async def test_errors_are_named(running: Running) -> None:
    client = running.client()
    with pytest.raises(failures.RefusedByTarget) as caught:
        await client.get([f"/{ckms.TOP}/weather"], deadline=5)
    assert caught.value.code is Code.UNIMPLEMENTED
    with pytest.raises(failures.RefusedByTarget):
        await within(anext(client.subscribe([Wanted(f"/{ckms.TOP}/weather", sample=1.0)])))
    nobody = Client(f"{running.host}:{free_port(running.host)}", client.peer, running.twins.files(client.peer))
    with pytest.raises(failures.Unreachable):
        await nobody.capabilities(deadline=5)
    await nobody.close()


async def test_another_service_at_the_address_is_not_the_target(running: Running) -> None:
    client = running.client(peer=service(Role.CKMS, "8"))
    with pytest.raises(failures.Unreachable):
        await client.capabilities(deadline=5)


async def test_renewed_certificates_are_used_for_the_next_connection(running: Running) -> None:
    files = running.twins.files(service(Role.AKMS, "1"))
    client = running.client(files=files)
    with pytest.raises(failures.RefusedByTarget):
        await client.capabilities(deadline=5)
    running.twins.renew(files, service(Role.CONTROLLER, "2"))
    assert (await client.capabilities(deadline=5)).gNMI_version == "0.8.0"
