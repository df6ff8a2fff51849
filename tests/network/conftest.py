"""A network of real processes, started once for all tests of this folder and stopped afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from keyhaul.transport.etsi014 import Client014
from tests.laboratory import SMALL, Network, loopback_for, running
from tests.network.load import encryptors


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    with running(SMALL.read_text(), loopback_for(0)) as started:
        yield started


@pytest.fixture
async def clients(network: Network) -> AsyncIterator[dict[str, Client014]]:
    """One 014 client for every SAE of the network, by SAE ID."""
    async with encryptors(network) as found:
        yield found
