"""pygnmi as an independent client with mutual TLS: Capabilities, Get, Set, ONCE, POLL, STREAM."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from pygnmi.client import gNMIException

from keyhaul.agents.gnmi.models import ckms
from keyhaul.identity.names import Role
from keyhaul.transport.tls import TlsFiles
from tests.keyhaul.agents.gnmi.carrier import STATEMENTS, Carrier
from tests.keyhaul.agents.gnmi.pki import CONTROLLER, service
from tests.keyhaul.agents.gnmi.running import Running, until, within
from tests.pygnmi_client import connected

# pygnmi leaves the files of its certificates open, and its threads end with the error that ends their stream.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::pytest.PytestUnhandledThreadExceptionWarning",
)

LINKS = "keyhaul-ckms:carrier/links/link"


def pygnmi(running: Running, files: TlsFiles) -> AbstractContextManager[Any]:
    return connected(f"{running.host}:{running.port}", "ckms-9", files, timeout=5)


async def call(running: Running, use: Callable[[Any], Any]) -> Any:
    files = running.twins.files(CONTROLLER)

    def work() -> Any:
        with pygnmi(running, files) as client:
            return use(client)

    return await within(asyncio.to_thread(work), 30)


async def test_capabilities(running: Running) -> None:
    told = await call(running, lambda client: client.capabilities())
    assert told["gnmi_version"] == "0.8.0"
    assert set(told["supported_encodings"]) == {"json", "json_ietf"}
    assert {(model["name"], model["version"]) for model in told["supported_models"]} == {
        ("keyhaul-ckms", "2026-11-22"),
        ("etsi-qkd-sdn-node", "2022-01-30"),
    }


@pytest.mark.parametrize(("encoding", "rate"), [("json", 2**33), ("json_ietf", str(2**33))])
async def test_get(running: Running, encoding: str, rate: Any) -> None:
    path = f"{LINKS}[neighbour=ckms-8]/rate"
    told = await call(running, lambda client: client.get(path=[path, path], encoding=encoding))
    values = [[update["val"] for update in notification["update"]] for notification in told["notification"]]
    assert values == [[rate], [rate]]


async def test_get_state_and_configuration(running: Running, carrier: Carrier) -> None:
    carrier.book.held[18] = {"serial": 18, "body": b"{}", "signature": b""}
    path = "keyhaul-ckms:carrier/forwarding"

    def both(client: Any) -> list[Any]:
        return [client.get(path=[path], datatype=kind, encoding="json_ietf") for kind in ("config", "state")]

    config, state = await call(running, both)
    (told,) = config["notification"][0]["update"]
    assert told["val"] == {"keyhaul-ckms:statement": [{"serial": "18", "body": "e30=", "signature": ""}]}
    (told,) = state["notification"][0]["update"]
    assert told["val"]["keyhaul-ckms:epoch"] == "3"
    assert "keyhaul-ckms:statement" not in told["val"]


async def test_set(running: Running, carrier: Carrier) -> None:
    place = STATEMENTS.removeprefix("/")
    good = (f"{place}[serial=18]", {"body": "e30=", "signature": "AAAA"})
    bad = (f"{place}[serial=19]", {"body": "YmFk", "signature": "AAAA"})
    told = await call(running, lambda client: client.set(update=[good], encoding="json_ietf"))
    assert told["response"][0]["op"] == "UPDATE"
    assert set(carrier.book.held) == {18}
    with pytest.raises(gNMIException):
        await call(
            running, lambda client: client.set(update=[(f"{place}[serial=20]", good[1]), bad], encoding="json_ietf")
        )
    with pytest.raises(gNMIException):
        await call(running, lambda client: client.set(delete=[f"{place}[serial=18]"]))
    assert set(carrier.book.held) == {18}


async def test_once(running: Running) -> None:
    asked = {"subscription": [{"path": LINKS}], "mode": "once", "encoding": "json_ietf"}
    told = await call(running, lambda client: list(client.subscribe2(subscribe=asked)))
    assert [update["val"]["keyhaul-ckms:neighbour"] for update in told[0]["update"]["update"]] == ["ckms-8", "ckms-16"]
    assert told[-1] == {"sync_response": True}


async def test_poll(running: Running, carrier: Carrier) -> None:
    asked = {"subscription": [{"path": f"{LINKS}[neighbour=ckms-8]/rate"}], "mode": "poll", "encoding": "json"}

    def polls(client: Any) -> list[Any]:
        subscription = client.subscribe2(subscribe=asked)
        told = []
        for rate in (5, 6):
            carrier.links["ckms-8"]["rate"] = rate
            told.append(subscription.get_update(timeout=5)["update"]["update"][0]["val"])
        subscription.close()
        return told

    assert await call(running, polls) == [5, 6]


@pytest.mark.parametrize("mode", ["sample", "on_change", "target_defined"])
async def test_stream(running: Running, carrier: Carrier, mode: str) -> None:
    interval = {"sample_interval": 100_000_000} if mode == "sample" else {}
    asked = {
        "subscription": [{"path": f"{LINKS}[neighbour=ckms-8]", "mode": mode, **interval}],
        "mode": "stream",
        "encoding": "json_ietf",
    }

    def listen(client: Any) -> Any:
        subscription = client.subscribe2(subscribe=asked)
        first = subscription.get_update(timeout=5)
        assert first["sync_response"]
        carrier.links["ckms-8"]["up"] = False
        told = subscription.get_update(timeout=5)
        subscription.close()
        return told["update"]["update"][0]

    assert (await call(running, listen))["val"]["keyhaul-ckms:up"] is False
    await until(lambda: running.target.streams == 0)


async def test_an_akms_gets_nothing(running: Running) -> None:
    files = running.twins.files(service(Role.AKMS, "1"))

    def work() -> None:
        with pygnmi(running, files) as client:
            client.get(path=[LINKS])

    with pytest.raises(gNMIException, match="akms-1 may not call Capabilities"):
        await within(asyncio.to_thread(work), 30)


async def test_paths_in_every_form(running: Running) -> None:
    def forms(client: Any) -> list[Any]:
        paths = ("carrier/version", "keyhaul-ckms:carrier/version", f"rfc7951:{ckms.TOP}/version")
        return [client.get(path=[path])["notification"][0]["update"][0] for path in paths]

    plain, origin, qualified = await call(running, forms)
    assert {update["val"] for update in (plain, origin, qualified)} == {"0.1.0"}
