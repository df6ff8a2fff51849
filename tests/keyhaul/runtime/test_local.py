"""The local socket at the end of its service: whoever is connected is let go, without a word in the log."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from keyhaul.runtime.local import LocalServer, LocalUnreachable, ask


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kl-", dir="/tmp") as directory:
        yield Path(directory) / "socket"


@pytest.fixture
def complaints() -> Iterator[list[dict[str, Any]]]:
    """What the event loop reports as an error."""
    found: list[dict[str, Any]] = []
    yield found
    assert found == []


async def serving(place: Path, complaints: list[dict[str, Any]]) -> LocalServer:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    server = LocalServer(place)
    await server.start()
    return server


async def until(server: LocalServer, connections: int) -> None:
    async with asyncio.timeout(5):
        while len(server._connections) != connections:
            await asyncio.sleep(0)


async def test_clients_that_say_nothing_or_half_a_line_are_let_go(
    place: Path, complaints: list[dict[str, Any]]
) -> None:
    server = await serving(place, complaints)
    clients = [await asyncio.open_unix_connection(place) for _ in range(3)]
    clients[1][1].write(b'{"command"')
    await until(server, 3)

    with structlog.testing.capture_logs() as logged:
        await server.close()
        async with asyncio.timeout(5):
            assert [await reader.read() for reader, _ in clients] == [b"", b"", b""]
    assert logged == []
    assert not place.exists()
    for _, writer in clients:
        writer.close()


async def test_a_command_under_way_is_cancelled_and_its_caller_told_nothing(
    place: Path, complaints: list[dict[str, Any]]
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def slow(_: dict[str, Any]) -> dict[str, Any]:
        began.set()
        try:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
        finally:
            ended.set()

    server = await serving(place, complaints)
    server.command("slow", slow)
    asking = asyncio.create_task(ask(place, "slow"))
    await began.wait()
    await server.close()

    assert ended.is_set()
    with pytest.raises(LocalUnreachable, match="closed the connection"):
        await asking


async def test_connections_that_are_over_are_forgotten(place: Path, complaints: list[dict[str, Any]]) -> None:
    server = await serving(place, complaints)
    for _ in range(40):
        with pytest.raises(Exception, match="no such command"):
            await ask(place, "nothing")
    await until(server, 0)
    await server.close()
