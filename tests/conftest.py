"""What tests of several folders stand on: databases of both engines."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import keyhaul.agents.gnmi  # noqa: F401 - before any test imports gRPC, see there
from tests.postgresql import PostgreSQL, missing, running

# How fast the machine happens to be decides about no test.
settings.register_profile("keyhaul", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("keyhaul")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server, one for all tests of this process."""
    if lack := missing():
        if os.environ.get("CI") == "true":
            pytest.fail(lack)
        pytest.skip(lack)
    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database: a file of the folder that it is opened with, or one of a PostgreSQL server."""
    if request.param == "sqlite":
        return "sqlite:///test.db"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database()
