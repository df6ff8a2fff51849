"""What access nodes want of paths beyond what keys need: any class, at any rate, as if their AKMSs had used it."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from keyhaul.keys.grants import SERVICE_CLASSES

if TYPE_CHECKING:
    from tests.simulator.world import World

ENDS = ("ckms-2", "ckms-5")

LENGTHS = (1_024, 65_536, 1_048_576)
"""Bytes that were used, of which the wanted rate follows."""


async def wish(world: World) -> None:
    """Want something now and then, until cancelled."""
    chance = Random(f"{world.seed} wishes")
    classes = sorted(SERVICE_CLASSES)
    while True:
        await asyncio.sleep(chance.expovariate(world.settings.wishes))
        source, destination = chance.sample(ENDS, 2)
        process = world.ckms(source)
        service_class, length = chance.choice(classes), chance.choice(LENGTHS)
        if process.life is not None and process.asking is not None:
            process.asking.used(destination, service_class, length, process.clock())
