"""A process that neither answers nor dies."""

from __future__ import annotations

import asyncio
import signal

import pytest

from keyhaul.transport.etsi014 import Client014
from tests.faults.ground import BACK, Ground
from tests.faults.oracle import under_load
from tests.network.load import more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults")]

DETECTED = 60.0
"""Seconds after which a test gives up waiting until a neighbour has noticed; the budget of an idle machine is 1 s."""


@pytest.mark.parametrize(
    ("service", "neighbour"),
    [("ckms-m", "ckms-a"), ("qkdm-m", None), ("aaa-dc", None)],
)
async def test_keys_go_on_while_a_service_is_frozen(
    ground: Ground, clients: dict[str, Client014], service: str, neighbour: str | None
) -> None:
    async with ground.thawed(service), under_load(ground, clients) as case:
        await more(case.seen, 40)
        ground.send(service, signal.SIGSTOP)
        if neighbour is not None:
            async with asyncio.timeout(DETECTED):
                while neighbour not in await ground.lacks([neighbour]):
                    await asyncio.sleep(0.05)
        await more(case.seen, 200)
        case.over()
        ground.send(service, signal.SIGCONT)
        await ground.serving([service])
        await more(case.seen, 40, BACK)


@pytest.mark.parametrize("service", ["akms-b", "ukms-east"])
async def test_what_cannot_go_on_fails_cleanly_and_comes_back(
    ground: Ground, clients: dict[str, Client014], service: str
) -> None:
    neighbour = {"akms-b": "ukms-east", "ukms-east": "akms-b"}[service]
    async with ground.thawed(service), under_load(ground, clients) as case:
        await more(case.seen, 40)
        ground.send(service, signal.SIGSTOP)
        async with asyncio.timeout(DETECTED):
            while neighbour not in await ground.lacks([neighbour]):
                await asyncio.sleep(0.05)
        # Both users' answers may be lost at a site that is frozen.
        case.unsure = 16 if service.startswith("ukms") else 0
        refused = case.seen.refused
        async with asyncio.timeout(BACK):
            while case.seen.refused < refused + 2:
                await asyncio.sleep(0.05)
        case.over()
        ground.send(service, signal.SIGCONT)
        await ground.serving()
        await more(case.seen, 40, BACK)
