"""pygnmi, as an independent client with mutual TLS, against CKMSs that run; who is no controller gets nothing."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

import grpc
import pytest
from pygnmi.client import gNMIclient, gNMIException
from pygnmi.spec.v080 import gnmi_pb2, gnmi_pb2_grpc

from keyhaul.agents.gnmi.models import ckms
from keyhaul.agents.gnmi.paths import parse, to_proto
from keyhaul.agents.signing import sign
from keyhaul.agents.statements import Statement, Withdrawal
from keyhaul.config.loader import load
from keyhaul.config.services import CkmsConfig
from keyhaul.identity.keys import load_link_private
from keyhaul.transport.tls import TlsFiles
from tests.laboratory import SMALL, Network, keyhaul, loopback_for, running, with_controller
from tests.pygnmi_client import connected

# pygnmi leaves the files of its certificates open, and its threads end with the error that ends their stream.
pytestmark = [
    pytest.mark.network,
    pytest.mark.xdist_group("network"),
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning",
        "ignore::pytest.PytestUnraisableExceptionWarning",
        "ignore::pytest.PytestUnhandledThreadExceptionWarning",
    ),
]

NODE = "m"
LINKS = f"{ckms.TOP}/links/link"
FORWARDING = f"{ckms.TOP}/forwarding"

Result = TypeVar("Result")


@pytest.fixture(scope="module")
def carriers() -> Iterator[Network]:
    """The CKMSs of a network whose controller does not run."""
    with running(with_controller(SMALL.read_text()), loopback_for(3), roles=("qkdm", "ckms")) as network:
        yield network


def files(network: Network, service: str = "controller-dc") -> TlsFiles:
    """What a service shows to an agent, and the authority of the agents' certificates."""
    role, _, node = service.partition("-")
    own = network.directory / "nodes" / node / role
    trust = network.directory / "nodes" / "dc" / "controller" / "services.pem"
    return TlsFiles(own / "classic-certificate.pem", own / "classic-key.pem", trust)


def address(network: Network) -> str:
    gnmi = load(network.directory / "nodes" / NODE / "ckms" / "config.toml", CkmsConfig).gnmi
    assert gnmi is not None
    return gnmi.address


def pygnmi(network: Network, shown: TlsFiles) -> AbstractContextManager[Any]:
    return connected(address(network), f"ckms-{NODE}", shown)


async def call(network: Network, use: Callable[[Any], Result]) -> Result:
    def work() -> Result:
        with pygnmi(network, files(network)) as client:
            return use(client)

    async with asyncio.timeout(60):
        return await asyncio.to_thread(work)


def value(told: dict[str, Any]) -> Any:
    """The one value of a Get."""
    ((update,),) = (notification["update"] for notification in told["notification"])
    return update["val"]


async def test_capabilities(carriers: Network) -> None:
    told = await call(carriers, lambda client: client.capabilities())
    assert told["gnmi_version"] == "0.8.0"
    assert {model["name"] for model in told["supported_models"]} == {"keyhaul-ckms", "etsi-qkd-sdn-node"}
    assert set(told["supported_encodings"]) == {"json", "json_ietf"}


async def test_get(carriers: Network) -> None:
    """What it tells of its links is what the operator on the spot is shown."""
    place = f"{LINKS}[neighbour=ckms-a]"
    link: dict[str, Any] = {}
    async with asyncio.timeout(30):
        while not link.get("keyhaul-ckms:up"):
            link = value(await call(carriers, lambda client: client.get(path=[place], encoding="json_ietf")))
    shown = json.loads(keyhaul("link", "show", "a-m", "--network", carriers.directory, "--json").stdout)
    (own,) = (end for end in shown["ends"] if end["service"] == f"ckms-{NODE}")
    assert (link["keyhaul-ckms:id"], link["keyhaul-ckms:suite"]) == (own["link"], own["suite"])
    assert {pool["direction"] for pool in link["keyhaul-ckms:pool"]} == {"outgoing", "incoming"}
    standard = await call(carriers, lambda client: client.get(path=["etsi-qkd-sdn-node:qkd_node/qkdn_id"]))
    assert value(standard)


async def test_set(carriers: Network) -> None:
    """A statement takes effect, once; what is not signed, and a deletion, change nothing."""
    key = load_link_private(carriers.directory / "nodes" / "dc" / "controller" / "statement-key.pem")
    read = f"{ckms.TOP}/incarnation"
    incarnation = value(await call(carriers, lambda client: client.get(path=[read], encoding="json_ietf")))

    def stated(serial: int) -> tuple[str, dict[str, str]]:
        says = Withdrawal(serials=())
        body = Statement(
            v=1, node=f"ckms-{NODE}", incarnation=incarnation, epoch=7, serial=serial, lifetime_s=60, says=says
        )
        (signed,) = sign([body], key)
        octets = {"body": signed.body, "signature": signed.signature}
        place = f"{FORWARDING}/statement[serial={serial}]"
        return place, {name: base64.b64encode(one).decode() for name, one in octets.items()}

    good, forged = stated(1), stated(2)
    forged[1]["signature"] = good[1]["signature"]
    told = await call(carriers, lambda client: client.set(update=[good], encoding="json_ietf"))
    assert told["response"][0]["op"] == "UPDATE"
    for wrong, why in (([good], "replayed"), ([stated(3), forged], "forged")):
        with pytest.raises(gNMIException, match=why):
            await call(carriers, partial(gNMIclient.set, update=wrong, encoding="json_ietf"))
    with pytest.raises(gNMIException, match="withdrawn by statements"):
        await call(carriers, lambda client: client.set(delete=[good[0]]))
    for leaf, expected in (("epoch", "7"), ("serial", "1")):
        told = await call(carriers, partial(gNMIclient.get, path=[f"{FORWARDING}/{leaf}"], encoding="json_ietf"))
        assert value(told) == expected


async def test_once(carriers: Network) -> None:
    asked = {"subscription": [{"path": LINKS}], "mode": "once", "encoding": "json_ietf"}
    told = await call(carriers, lambda client: list(client.subscribe2(subscribe=asked)))
    links = [update["val"]["keyhaul-ckms:neighbour"] for one in told[:-1] for update in one["update"]["update"]]
    assert links == ["ckms-a", "ckms-b"]
    assert told[-1] == {"sync_response": True}


async def test_poll(carriers: Network) -> None:
    asked = {"subscription": [{"path": f"{ckms.TOP}/started-seconds-ago"}], "mode": "poll", "encoding": "json"}

    def polls(client: Any) -> list[int]:
        subscription = client.subscribe2(subscribe=asked)
        told: list[int] = []
        while len(set(told)) < 2:
            told.append(subscription.get_update(timeout=10)["update"]["update"][0]["val"])
        subscription.close()
        return told

    told = await call(carriers, polls)
    assert told == sorted(told)


async def test_stream(carriers: Network) -> None:
    """Samples keep coming; a link that is cut is told as it happens."""
    place = f"{LINKS}[neighbour=ckms-b]"
    asked = {
        "subscription": [
            {"path": place, "mode": "sample", "sample_interval": 200_000_000},
            {"path": f"{place}/up", "mode": "on_change"},
        ],
        "mode": "stream",
        "encoding": "json_ietf",
    }

    def listen(client: Any) -> tuple[int, list[bool]]:
        subscription = client.subscribe2(subscribe=asked)
        samples, states = 0, list[bool]()
        while samples < 5 or states[-1:] != [False]:
            for update in subscription.get_update(timeout=20).get("update", {}).get("update", ()):
                if isinstance(update["val"], bool):
                    states.append(update["val"])
                else:
                    samples += 1
            if samples == 5 and not states[1:]:
                keyhaul("link", "cut", "m-b", "--network", carriers.directory)
        subscription.close()
        return samples, states

    try:
        samples, states = await call(carriers, listen)
    finally:
        await asyncio.to_thread(keyhaul, "link", "restore", "m-b", "--network", carriers.directory)
    assert samples >= 5
    assert states == [True, False]


@pytest.mark.parametrize("shows", [None, "akms-a", f"ckms-{NODE}"], ids=["nothing", "akms", "ckms"])
async def test_who_is_no_controller_gets_nothing(carriers: Network, shows: str | None) -> None:
    own = None if shows is None else files(carriers, shows)
    trust = files(carriers).trust.read_bytes()
    credentials = grpc.ssl_channel_credentials(
        trust, *((None, None) if own is None else (own.key.read_bytes(), own.certificate.read_bytes()))
    )
    override = (("grpc.ssl_target_name_override", f"ckms-{NODE}"),)
    path = to_proto(parse(f"/{LINKS}"))
    asked = gnmi_pb2.SubscribeRequest(
        subscribe=gnmi_pb2.SubscriptionList(subscription=[gnmi_pb2.Subscription(path=path)])
    )
    statement = to_proto(parse(f"/{FORWARDING}/statement[serial=9]"))
    put = gnmi_pb2.Update(path=statement, val=gnmi_pb2.TypedValue(json_ietf_val=b"{}"))
    async with grpc.aio.secure_channel(address(carriers), credentials, override) as channel:
        stub = gnmi_pb2_grpc.gNMIStub(channel)
        for answer in (
            stub.Capabilities(gnmi_pb2.CapabilityRequest(), timeout=10),
            stub.Get(gnmi_pb2.GetRequest(path=[path]), timeout=10),
            stub.Set(gnmi_pb2.SetRequest(update=[put]), timeout=10),
            stub.Subscribe(iter([asked]), timeout=10).read(),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await answer
            expected = grpc.StatusCode.UNAVAILABLE if own is None else grpc.StatusCode.PERMISSION_DENIED
            assert refused.value.code() is expected
