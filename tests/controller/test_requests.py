"""Path requests as the controller answers them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from controller.requests import BURST, PathRequests
from keyhaul.database.errors import DatabaseUnavailable
from keyhaul.identity.names import Role
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.path import AskExposures, PathRefusal, PathReply, PathRequest
from keyhaul.transport.messages.relay import Exposure
from keyhaul.transport.operations import PATH_EXPOSURES, PATH_REQUEST
from tests.keyhaul.agents.gnmi.pki import service


class Asked:
    """The operation, and what the controller was asked."""

    def __init__(self, reply: PathReply | None) -> None:
        self.reply = reply
        self.seen: list[tuple[Any, ...]] = []
        self.now = 0.0
        self.registry = CollectorRegistry()
        routes = Routes()
        PathRequests(self.wanted, self.exposed, self.registry, clock=lambda: self.now).serve(routes)
        self.route = routes.find(PATH_REQUEST.path)
        self.exposures = routes.find(PATH_EXPOSURES.path)
        self.found: list[Exposure] | None = []
        self.away = False

    def wanted(self, *asked: Any) -> PathReply | None:
        self.seen.append(asked)
        return self.reply

    async def exposed(self, node: str) -> Sequence[Exposure] | None:
        if self.away:
            raise DatabaseUnavailable("gone")
        return None if self.found is None else [one for one in self.found if one.other != node]

    async def ask_exposures(self, node: str = "1", known: str = "") -> Any:
        assert self.exposures is not None
        peer: Any = Peer(service(Role.CKMS, node), None)  # type: ignore[arg-type]
        return await self.exposures.handler(peer, AskExposures(known=known))

    async def ask(self, node: str = "1", **request: Any) -> Any:
        assert self.route is not None
        fields: dict[str, Any] = {"destination": "ckms-2", "service_class": "gold", "rate": 5.0} | request
        peer: Any = Peer(service(Role.CKMS, node), None)  # type: ignore[arg-type]
        return await self.route.handler(peer, PathRequest(**fields))

    def counted(self, answer: str) -> float:
        return self.registry.get_sample_value("keyhaul_controller_path_requests_total", {"answer": answer}) or 0.0


async def test_the_source_is_who_asks_by_its_certificate() -> None:
    asked = Asked(PathReply())
    assert (await asked.ask(failed="ckms-3")).refusal is None
    assert asked.seen == [("ckms-1", "ckms-2", "gold", 5.0, "ckms-3")]
    assert asked.counted("taken-on") == 1


async def test_a_controller_that_does_not_lead_says_so() -> None:
    asked = Asked(None)
    assert (await asked.ask()).refusal is PathRefusal.NOT_LEADER
    assert asked.counted("not-leader") == 1


@pytest.mark.parametrize(
    "request_", [{"rate": 0.0}, {"rate": -1.0}, {"rate": float("inf")}, {"rate": float("nan")}, {"service_class": "x"}]
)
async def test_nonsense_is_refused_before_anything_is_computed(request_: dict[str, Any]) -> None:
    asked = Asked(PathReply())
    with pytest.raises(ServiceError) as refused:
        await asked.ask(**request_)
    assert refused.value.code is ErrorCode.MALFORMED
    assert asked.seen == []


async def test_one_ckms_that_asks_without_end_is_told_to_wait_and_others_are_not() -> None:
    asked = Asked(PathReply())
    for _ in range(int(BURST)):
        await asked.ask()
    with pytest.raises(ServiceError) as refused:
        await asked.ask()
    assert refused.value.code is ErrorCode.BUSY
    assert refused.value.retry_after_ms > 0
    await asked.ask("3")
    asked.now += refused.value.retry_after_ms / 1_000 + 0.001
    await asked.ask()


ONE = Exposure("1" * 32, "ckms-2", "silver", sends=True, over=False)


async def test_what_is_exposed_is_told_whole_and_what_is_known_is_not_told_again() -> None:
    asked = Asked(None)
    none = await asked.ask_exposures()
    assert none.exposures == []
    assert (await asked.ask_exposures(known=none.mark)).exposures is None
    asked.found = [ONE]
    told = await asked.ask_exposures(known=none.mark)
    assert told.exposures == [ONE]
    assert (await asked.ask_exposures(known=told.mark)).exposures is None
    asked.found = [msgspec.structs.replace(ONE, over=True)]
    assert (await asked.ask_exposures(known=told.mark)).exposures == asked.found, "that it is over is news"
    assert (await asked.ask_exposures("2", told.mark)).exposures == [], "each node hears of its own"


async def test_who_does_not_lead_or_cannot_read_says_nothing_of_exposures() -> None:
    asked = Asked(None)
    asked.found = None
    reply = await asked.ask_exposures()
    assert (reply.refusal, reply.exposures) == (PathRefusal.NOT_LEADER, None)
    asked.away = True
    with pytest.raises(ServiceError) as refused:
        await asked.ask_exposures()
    assert refused.value.code is ErrorCode.UNREACHABLE
