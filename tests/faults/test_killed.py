"""Processes that end between one instruction and the next."""

from __future__ import annotations

import random

import pytest

from keyhaul.transport.etsi014 import Client014
from tests.faults.ground import BACK, Ground
from tests.faults.oracle import under_load
from tests.network.load import more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults")]

ON_THEIR_WAY = 16
"""Keys that can be on their way to two encryptors, in answers of one site, when it is killed."""

TIMES = 12


@pytest.mark.parametrize(
    "service",
    [
        *("qkdm-west", "qkdm-a", "qkdm-m", "qkdm-east"),
        *("aaa-dc", "ckms-a", "ckms-m", "ckms-b", "akms-a", "akms-b", "ukms-west", "ukms-east"),
    ],
)
async def test_no_rule_breaks_when_a_service_is_killed(
    ground: Ground, clients: dict[str, Client014], service: str
) -> None:
    async with ground.plainly(service), under_load(ground, clients, alarms={"usage-not-recorded"}) as case:
        for _ in range(2):
            await more(case.seen, 40, BACK)
            ground.kill(service)
            case.unsure += ON_THEIR_WAY * service.startswith("ukms")
            case.over()
            ground.start(service)
            await ground.serving()
        await more(case.seen, 40, BACK)


async def test_no_rule_breaks_when_services_are_killed_while_others_start(
    ground: Ground, clients: dict[str, Client014]
) -> None:
    """One after the other at random, whether or not the one before is back; each at another moment of its work."""
    chance = random.Random(20261122)
    async with (
        ground.plainly(*ground.services),
        under_load(ground, clients, alarms={"usage-not-recorded", "delivery-refused"}) as case,
    ):
        for _ in range(TIMES):
            for service in chance.sample(ground.services, 3):
                ground.kill(service)
                case.unsure += ON_THEIR_WAY * service.startswith("ukms")
                ground.start(service)
            if chance.random() < 0.5:
                await ground.serving()
                await more(case.seen, chance.randrange(4, 60), BACK)
        case.over()
        await ground.serving()
        await more(case.seen, 40, BACK)
