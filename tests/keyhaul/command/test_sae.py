"""`keyhaul sae` against a pair of KMEs."""

from __future__ import annotations

import asyncio
import json
import stat
import tempfile
import threading
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from keyhaul.command.sae import sae
from keyhaul.keys.etsi014 import KEYS_NOT_FOUND
from keyhaul.transport.tls import classic_server
from tests.services.qkdm.authority import Authority

KEY_ID = uuid4()
SECRET = b"secret-secret-secret-secret-1234"


class Site:
    """A KME in a thread of its own, whose answers a test sets, and the files that `network init` writes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: dict[str, Any] = {
            "keys": [{"key_ID": str(KEY_ID), "key": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ="}]
        }
        self.requests: list[tuple[str, str]] = []
        trust = Authority(directory, "trust")
        self.server_files = trust.issue("kme-1", server=True)
        self.files = (*trust.issue("sae-1"), trust.trust)
        self._stop = asyncio.Event()
        self._port: Future[int] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        self.url = f"https://127.0.0.1:{self._port.result(10)}"
        certificate, key, ca = map(str, self.files)
        entry = {"id": "sae-1", "node": "1", "ukms": self.url, "certificate": certificate, "key": key, "ca": ca}
        (directory / "network.json").write_text(json.dumps({"services": [], "saes": [entry]}))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(sae, [*arguments, "--network", str(self.directory), "--as", "sae-1"])

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        http = web.Server(self._handle, access_log=None)
        tls = classic_server(*self.server_files, self.files[2])
        server = await self._loop.create_server(http, "127.0.0.1", 0, ssl=tls)
        self._port.set_result(server.sockets[0].getsockname()[1])
        await self._stop.wait()
        server.close()
        http.pre_shutdown()
        await http.shutdown(1.0)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append((request.method, request.raw_path))
        return web.json_response(self.body, status=self.status, headers=self.headers)


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as name:
        site = Site(Path(name))
        yield site
        site.close()


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    before = running.status, running.headers, running.body
    running.requests.clear()
    yield running
    running.status, running.headers, running.body = before


def test_get_key_shows_ids_and_lengths_but_no_bits(site: Site) -> None:
    result = site.run("get-key", "sae-2")
    assert result.exit_code == 0
    assert str(KEY_ID) in result.output
    assert "256" in result.output
    assert "c2Vj" not in result.output
    assert site.requests == [("GET", "/api/v1/keys/sae-2/enc_keys")]


def test_bits_are_shown_when_asked_for(site: Site) -> None:
    assert "c2VjcmV0" in site.run("get-key", "sae-2", "--show-keys").output


def test_json_is_the_container(site: Site) -> None:
    result = site.run("get-key", "sae-2", "--number", "1", "--size", "256", "--json")
    assert json.loads(result.output) == site.body


def test_get_key_with_id(site: Site) -> None:
    result = site.run("get-key-with-id", "sae-2", str(KEY_ID), "--json")
    assert result.exit_code == 0
    assert site.requests == [("GET", f"/api/v1/keys/sae-2/dec_keys?key_ID={KEY_ID}")]
    assert site.run("get-key-with-id", "sae-2", str(KEY_ID), str(KEY_ID)).exit_code == 2
    assert site.run("get-key-with-id", "sae-2", "nonsense").exit_code == 2


@pytest.mark.parametrize("encoding", ["raw", "base64"])
def test_keys_are_written_to_a_private_new_file(site: Site, tmp_path: Path, encoding: str) -> None:
    output = tmp_path / "key"
    result = site.run("get-key", "sae-2", "--output", str(output), "--encoding", encoding)
    assert result.exit_code == 0
    content = output.read_bytes()
    assert (content if encoding == "raw" else b64decode(content)) == SECRET
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    site.requests.clear()
    assert site.run("get-key", "sae-2", "--output", str(output)).exit_code == 2
    assert site.requests == []
    assert output.read_bytes() == content


def test_refusals_end_with_1_and_leave_no_file(site: Site, tmp_path: Path) -> None:
    site.status, site.body = 400, {"message": KEYS_NOT_FOUND}
    result = site.run("get-key-with-id", "sae-2", str(KEY_ID), "--output", str(tmp_path / "key"))
    assert result.exit_code == 1
    assert f"400: {KEYS_NOT_FOUND}" in result.output
    assert not (tmp_path / "key").exists()


def test_exhaustion_ends_with_75_and_tells_when_to_retry(site: Site) -> None:
    site.status, site.body, site.headers = 503, {"message": "none"}, {"Retry-After": "3"}
    result = site.run("get-key", "sae-2")
    assert result.exit_code == 75
    assert "Retry-After: 3 s" in result.output


def test_an_unreachable_or_wrong_kme_ends_with_69(site: Site) -> None:
    certificate, key, ca = map(str, site.files)
    files = ["--cert", certificate, "--key", key, "--ca", ca]
    assert CliRunner().invoke(sae, ["status", "s", "--url", "https://127.0.0.1:1", *files]).exit_code == 69
    wrong = CliRunner().invoke(sae, ["status", "s", "--url", site.url, *files, "--kme", "kme-2"])
    assert wrong.exit_code == 69
    assert "kme-2" in wrong.output
    assert site.requests == []


def test_status(site: Site) -> None:
    site.body = {
        "source_KME_ID": "kme-1",
        "target_KME_ID": "kme-2",
        "master_SAE_ID": "sae-1",
        "slave_SAE_ID": "sae-2",
        "key_size": 256,
        "stored_key_count": 12,
        "max_key_count": 100,
        "max_key_per_request": 128,
        "max_key_size": 1024,
        "min_key_size": 64,
        "max_SAE_ID_count": 0,
    }
    result = site.run("status", "sae-2")
    assert result.exit_code == 0
    assert "12 of at most 100" in result.output
    assert json.loads(site.run("status", "sae-2", "--json").output) == site.body


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--network", "."],
        ["--url", "https://127.0.0.1:1"],
        ["--as", "sae-1"],
        ["--network", ".", "--as", "sae-1"],
    ],
)
def test_incomplete_access_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(sae, ["get-key", "sae-2", *arguments])
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)


def test_an_unknown_sae_and_missing_files_are_wrong_usage(site: Site, tmp_path: Path) -> None:
    unknown = CliRunner().invoke(sae, ["get-key", "sae-2", "--network", str(site.directory), "--as", "x"])
    assert unknown.exit_code == 2
    assert "sae-1" in unknown.output
    missing = str(tmp_path / "missing.pem")
    files = ["--cert", missing, "--key", missing, "--ca", missing]
    absent = CliRunner().invoke(sae, ["get-key", "sae-2", "--url", site.url, *files])
    assert absent.exit_code == 2
    assert "missing.pem" in absent.output
