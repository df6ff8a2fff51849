"""Independent HTTP/2 tools against the class that serves requests, on a cleartext listener that only tests make."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from keyhaul.identity.names import Role
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.limits import MIB, Budget
from keyhaul.transport.messages.peer import Query, QueryReply
from keyhaul.transport.metrics import TransportMetrics
from keyhaul.transport.operations import DELIVERY_PUSH, PEER_QUERY, PEER_VOID
from keyhaul.transport.serving import Service, ServingWire
from keyhaul.transport.wire import WireSettings
from tests.keyhaul.transport.pki import Pki, leaf_of, service

A, B = service(Role.AKMS, "1"), service(Role.AKMS, "2")
QUESTION = b'{"v":1,"batches":["ab"]}'


def tool(name: str) -> str:
    """The path of a tool; without it the test is skipped, but fails where everything must be there."""
    path = shutil.which(name)
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    return path


async def run(*command: str, body: bytes = b"") -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate(body)
    assert process.returncode == 0, output
    return output.decode()


@contextlib.asynccontextmanager
async def cleartext(pki: Pki, settings: WireSettings | None = None) -> AsyncIterator[str]:
    """The serving class without TLS, for a caller that is said to be an AKMS."""
    routes = Routes()

    async def answer(_peer: Peer, query: Query) -> QueryReply:
        return QueryReply(states=[], critical=tuple(query.batches))

    routes.add(PEER_QUERY, answer)
    peer = Peer(A, leaf_of(pki.identity(A)))
    metrics = TransportMetrics.on(CollectorRegistry())
    serving = Service(B, routes, metrics=metrics)
    budget = Budget()
    wires: list[ServingWire] = []

    def accept() -> ServingWire:
        wires.append(
            ServingWire(
                peer,
                serving,
                settings=settings or WireSettings(),
                budget=budget,
                metrics=metrics,
                direction="accepted",
            )
        )
        return wires[-1]

    server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.close()
        for wire in wires:
            wire.close()
            async with asyncio.timeout(5):
                await wire.gone.wait()
        assert budget.used == 0


async def curl(url: str, body: bytes, *options: str) -> tuple[int, bytes]:
    """Post with curl over HTTP/2; returns status and body."""
    process = await asyncio.create_subprocess_exec(
        tool("curl"),
        *("--silent", "--show-error", "--http2-prior-knowledge", "--write-out", "\n%{http_version} %{http_code}"),
        *("--header", "expect:", "--data-binary", "@-", *options, url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, complaint = await process.communicate(body)
    assert process.returncode == 0, complaint
    answer, _, versions = output.rpartition(b"\n")
    version, status = versions.split()
    assert version == b"2"
    return int(status), answer


async def test_curl_is_answered(pki: Pki) -> None:
    async with cleartext(pki) as url:
        status, body = await curl(url + PEER_QUERY.path, QUESTION)
    assert status == 200
    assert json.loads(body) == {"v": 1, "critical": ["ab"], "states": []}


async def test_curl_is_refused_with_the_status_of_the_reason(pki: Pki) -> None:
    async with cleartext(pki) as url:
        assert (await curl(url + PEER_QUERY.path, b"{}"))[0] == 400
        assert (await curl(url + PEER_QUERY.path, QUESTION, "--request", "PUT"))[0] == 404
        assert (await curl(url + PEER_VOID.path, QUESTION))[0] == 404
        status, body = await curl(url + DELIVERY_PUSH.path, QUESTION)
    assert status == 403
    assert json.loads(body)["code"] == "forbidden"


async def test_curl_moves_sixteen_mebibytes(pki: Pki) -> None:
    text = "x" * (16 * MIB - 100)
    async with cleartext(pki) as url:
        status, body = await curl(url + PEER_QUERY.path, json.dumps({"v": 1, "batches": [text]}).encode())
        assert status == 200
        assert json.loads(body)["critical"] == [text]
        status, body = await curl(url + PEER_QUERY.path, b" " * (16 * MIB + 100))
    assert status == 400


async def test_nghttp_is_answered(pki: Pki, tmp_path: Path) -> None:
    question = tmp_path / "question.json"
    question.write_bytes(QUESTION)
    async with cleartext(pki) as url:
        output = await run(
            tool("nghttp"), "--verbose", "--data", str(question), "--header", ":method: POST", url + PEER_QUERY.path
        )
    assert ":status: 200" in output
    assert '"critical":["ab"]' in output


async def test_h2load_gets_every_answer(pki: Pki, tmp_path: Path) -> None:
    question = tmp_path / "question.json"
    question.write_bytes(QUESTION)
    async with cleartext(pki) as url:
        output = await run(
            *(tool("h2load"), "--requests=2000", "--clients=4", "--max-concurrent-streams=64"),
            *("--data", str(question), "--header", "content-type: application/json", url + PEER_QUERY.path),
        )
    found = re.search(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed", output)
    assert found is not None, output
    assert found.groups() == ("2000", "2000", "0")
    assert "status codes: 2000 2xx" in output
