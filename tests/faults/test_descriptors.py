"""A service that can open no more files, because too many strangers connected."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource

import pytest

from keyhaul.config.addresses import parse_address
from keyhaul.transport.etsi014 import Client014
from tests.faults.ground import BACK, Ground
from tests.faults.oracle import under_load
from tests.network.load import more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults")]

STRANGERS = 48
LEFT = 6
"""Descriptors that a service still gets: fewer than strangers come."""


@pytest.mark.parametrize("service", ["ukms-west", "akms-a", "ckms-m", "aaa-dc", "qkdm-m"])
async def test_a_service_without_descriptors_lives_on(
    ground: Ground, clients: dict[str, Client014], service: str
) -> None:
    host, port = parse_address(ground.network.service(service)["address"])
    pid = ground.pid(service)
    former = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    async with under_load(ground, clients, alarms={"usage-not-recorded"}) as case:
        await more(case.seen, 20)
        limit = len(os.listdir(f"/proc/{pid}/fd")) + LEFT
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, former[1]))
        writers = []
        try:
            for _ in range(STRANGERS):
                with contextlib.suppress(OSError):
                    writers.append((await asyncio.open_connection(host, port))[1])
            async with asyncio.timeout(BACK):
                while len(os.listdir(f"/proc/{pid}/fd")) < limit - 1:
                    await asyncio.sleep(0.02)
            await more(case.seen, 40, BACK)
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, former)
            for writer in writers:
                writer.close()
        case.over()
        await ground.serving()
        assert ground.pid(service) == pid
        await more(case.seen, 20, BACK)
