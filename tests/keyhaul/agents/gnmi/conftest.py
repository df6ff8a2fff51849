"""Fixtures of the gNMI tests; the classes are in `carrier` and `pki`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvloop

from tests.keyhaul.agents.gnmi.carrier import Carrier
from tests.keyhaul.agents.gnmi.pki import Twins
from tests.keyhaul.agents.gnmi.running import Running


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """What a client does with a target runs on both event loops, all else on asyncio's."""
    loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return loops if item.path.name == "test_client.py" else {"asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="session")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    return Twins(tmp_path_factory.mktemp("twins"))


@pytest.fixture
def carrier() -> Carrier:
    return Carrier()


@pytest.fixture
async def running(twins: Twins, carrier: Carrier) -> AsyncIterator[Running]:
    running = await Running.start(twins, carrier)
    try:
        yield running
    finally:
        await running.stop()
