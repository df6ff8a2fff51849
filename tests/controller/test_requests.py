"""Path requests as the controller answers them."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from controller.requests import BURST, PathRequests
from keyhaul.identity.names import Role
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.path import PathRefusal, PathReply, PathRequest
from keyhaul.transport.operations import PATH_REQUEST
from tests.keyhaul.agents.gnmi.pki import service


class Asked:
    """The operation, and what the controller was asked."""

    def __init__(self, reply: PathReply | None) -> None:
        self.reply = reply
        self.seen: list[tuple[Any, ...]] = []
        self.now = 0.0
        self.registry = CollectorRegistry()
        routes = Routes()
        PathRequests(self.wanted, self.registry, clock=lambda: self.now).serve(routes)
        self.route = routes.find(PATH_REQUEST.path)

    def wanted(self, *asked: Any) -> PathReply | None:
        self.seen.append(asked)
        return self.reply

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
