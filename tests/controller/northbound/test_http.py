"""The northbound operations as any HTTP/2 client meets them: what is answered to good, bad and strange requests."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from controller.northbound.service import Northbound
from keyhaul.identity.names import Role
from keyhaul.transport.interface import Routes
from keyhaul.transport.limits import MIB
from keyhaul.transport.listener import Listener
from keyhaul.transport.tls import service_client
from tests.controller.northbound.conftest import ADDRESS
from tests.controller.northbound.plain import Plain
from tests.controller.northbound.scene import Scene
from tests.keyhaul.transport.house import House
from tests.keyhaul.transport.pki import Pki, service

LINKS = "/v1/network.links"
EVENTS = "/v1/network.events"


@pytest.fixture
async def operator(house: House, listener: Listener) -> AsyncIterator[Plain]:
    plain = await Plain.to(listener.address, service_client(house.pki.identity(service(Role.OPERATOR, "noc-1"))))
    yield plain
    await plain.close()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("status", ""),
        ("nodes", ""),
        ("links", ',"start":1,"most":2'),
        ("demands", ""),
        ("reservations", ""),
        ("disagreements", ""),
        ("events", ',"after":0'),
        ("explain", ',"source":"ckms-2","target":"ckms-14","service_class":"gold","unheard_of":1'),
        ("whatif", ',"links":["8-9"]'),
        ("dryrun", ',"nodes":[],"links":[]'),
        ("quarantine", ',"node":"ckms-9","reason":"seal"'),
        ("release", ',"node":"ckms-9"'),
    ],
)
async def test_each_operation_is_a_post_with_json(operator: Plain, path: str, body: str) -> None:
    answer = await operator.ask("POST", f"/v1/network.{path}", b'{"v":1%b}' % body.encode())
    assert (answer.status, answer.document["v"]) == (200, 1)


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (LINKS, b"", 400, "the body is not JSON"),
        (LINKS, b"{", 400, "the body is not JSON"),
        (LINKS, b"[]", 400, "not a message of this operation"),
        (LINKS, b"{}", 400, "not a message of this operation"),
        (LINKS, b'{"v":9}', 400, "protocol versions 1 to 1 are supported"),
        (LINKS, b'{"v":1,"most":0}', 400, "not of its type, at $.most"),
        (LINKS, b'{"v":1,"critical":["colour"]}', 400, "a critical field is not known here"),
        (LINKS, b" " * (16 * MIB + 1), 400, "a message has at most 16777216 bytes"),
        (EVENTS, b'{"v":1,"after":5}', 409, "begin with a snapshot"),
        ("/v1/network.whatif", b'{"v":1,"nodes":["ckms-99"]}', 404, "there is no ckms-99"),
        ("/v1/network.quarantine", b'{"v":1,"node":"ckms-99","reason":"x"}', 404, "there is no node ckms-99"),
        ("/v1/network.quarantine", b'{"v":1,"node":"ckms-9","reason":""}', 400, "at $.reason"),
        ("/v1/network.everything", b'{"v":1}', 404, "there is no such operation"),
        ("/v1/path.request", b'{"v":1}', 403, "operator may not call path.request"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_a_reason(
    operator: Plain, path: str, body: bytes, status: int, message: str
) -> None:
    answer = await operator.ask("POST", path, body)
    assert answer.status == status
    assert message in answer.document["message"]
    assert (await operator.ask("POST", LINKS, b'{"v":1}')).status == 200, "the connection goes on"


async def test_other_methods_find_nothing(operator: Plain) -> None:
    for method in ("GET", "OPTIONS", "PUT", "DELETE"):
        assert (await operator.ask(method, LINKS)).status == 404
    answer = await operator.ask("HEAD", LINKS)
    assert (answer.status, answer.body) == (404, b"")
    assert (await operator.ask("POST", LINKS, b'{"v":1}')).status == 200


async def test_whose_certificate_another_root_vouches_for_gets_nothing(house: House, listener: Listener) -> None:
    theirs = Pki.make(house.pki.folder / "other", "another root").identity(service(Role.OPERATOR, "noc-1"))
    stranger = replace(theirs, trust=house.pki.identity(service(Role.OPERATOR, "noc-1")).trust)
    plain = await Plain.to(listener.address, service_client(stranger))
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await plain.ask("POST", LINKS, b'{"v":1}')
    await plain.close()


async def test_who_waits_for_events_is_answered_when_the_controller_stops(house: House, scene: Scene) -> None:
    routes = Routes()
    northbound = Northbound(routes, scene, lambda: 0.0)
    listener = await house.listener(service(Role.CONTROLLER, "16"), routes, address=ADDRESS)
    plain = await Plain.to(listener.address, service_client(house.pki.identity(service(Role.VIEWER, "noc-1"))))
    waiting = asyncio.ensure_future(plain.ask("POST", EVENTS, b'{"v":1,"after":0,"wait_ms":30000}'))
    await house.until(lambda: bool(scene.waiters))
    northbound.close()
    await listener.close()
    answer = await waiting
    assert (answer.status, answer.document) == (200, {"v": 1, "events": []})
    await plain.close()
