"""Fixtures of the transport's tests; the classes are in `pki` and `house`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography.hazmat.primitives.asymmetric import ec

from tests.keyhaul.transport.house import House
from tests.keyhaul.transport.pki import Pki


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """Every asynchronous test here runs on both event loops that the transport must work with."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki.make(tmp_path / "pki")


@pytest.fixture
def classic_pki(tmp_path: Path) -> Pki:
    return Pki.make(tmp_path / "classic", "classic root", lambda: ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
async def house(pki: Pki) -> AsyncIterator[House]:
    house = House(pki)
    async with house.stack:
        yield house
