"""The client of ETSI GS QKD 014 against a KME that answers whatever a test wants."""

from __future__ import annotations

import asyncio
import json
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web

from keyhaul.transport.etsi014 import (
    MAXIMUM_ANSWER,
    Client014,
    Etsi014Error,
    Etsi014Invalid,
    Etsi014Unreachable,
)
from keyhaul.transport.tls import classic_client, classic_server
from tests.services.qkdm.authority import Authority


class Kme:
    """Records requests and gives the prepared answer."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.trust = Authority(directory, "trust")
        self.requests: list[tuple[str, str, bytes]] = []
        self.connections = 0
        self.status = 200
        self.body: bytes = b"{}"
        self.headers: dict[str, str] = {}
        self.hold = False
        self._http: web.Server | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        certificate, key = self.trust.issue("kme-1", server=True)
        self._http = web.Server(self._handle, access_log=None)

        def connected() -> asyncio.Protocol:
            self.connections += 1
            assert self._http is not None
            return self._http()

        self._server = await asyncio.get_running_loop().create_server(
            connected, "127.0.0.1", 0, ssl=classic_server(certificate, key, self.trust.trust)
        )

    async def close(self) -> None:
        assert self._server is not None
        assert self._http is not None
        self._server.close()
        self._http.pre_shutdown()
        await self._http.shutdown(0.1)
        await self._server.wait_closed()

    def client(self, expected_kme: str | None = "kme-1") -> Client014:
        assert self._server is not None
        tls = classic_client(*self.trust.issue("sae-1"), self.trust.trust)
        return Client014(
            f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}", tls, expected_kme=expected_kme
        )

    def keys(self, *ids: UUID, size: int = 256, fill: bytes = b"k") -> None:
        """Answer with keys of those IDs."""
        keys = [{"key_ID": str(id_), "key": b64encode(fill * (size // 8)).decode()} for id_ in ids]
        self.body = json.dumps({"keys": keys}).encode()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append((request.method, request.raw_path, await request.read()))
        if self.hold:
            await asyncio.Event().wait()
        return web.Response(status=self.status, body=self.body, headers=self.headers)


@pytest.fixture
async def kme() -> AsyncIterator[Kme]:
    with tempfile.TemporaryDirectory() as directory:
        made = Kme(Path(directory))
        await made.start()
        yield made
        await made.close()


@pytest.fixture
async def client(kme: Kme) -> AsyncIterator[Client014]:
    made = kme.client()
    yield made
    await made.close()


IDS = [uuid4() for _ in range(3)]


async def test_simple_requests_are_gets_on_one_connection(kme: Kme, client: Client014) -> None:
    kme.keys(IDS[0])
    await client.get_key("sae-2")
    await client.get_key("sae-2", size=256)
    await client.get_key_with_ids("sae-2", IDS[:1])
    kme.keys(*IDS)
    await client.get_key("sae-2", number=3)
    base = "/api/v1/keys/sae-2"
    assert kme.requests == [
        ("GET", f"{base}/enc_keys", b""),
        ("GET", f"{base}/enc_keys?size=256", b""),
        ("GET", f"{base}/dec_keys?key_ID={IDS[0]}", b""),
        ("GET", f"{base}/enc_keys?number=3", b""),
    ]
    assert kme.connections == 1


async def test_everything_else_is_posted(kme: Kme, client: Client014) -> None:
    kme.keys(*IDS[:2])
    await client.get_key("s", number=2, additional_slaves=["t"], extension_optional=[{"x_y": 1}])
    await client.get_key_with_ids("s", IDS[:2])
    (first, _, body), (second, _, ids) = kme.requests
    assert (first, second) == ("POST", "POST")
    assert json.loads(body) == {
        "number": 2,
        "additional_slave_SAE_IDs": ["t"],
        "extension_optional": [{"x_y": 1}],
    }
    assert json.loads(ids) == {"key_IDs": [{"key_ID": str(key_id)} for key_id in IDS[:2]]}


async def test_ids_of_saes_are_encoded_in_the_path(kme: Kme, client: Client014) -> None:
    kme.keys(IDS[0])
    await client.get_key("a/b?c %+")
    assert kme.requests[0][1] == "/api/v1/keys/a%2Fb%3Fc%20%25%2B/enc_keys"


async def test_keys_come_in_the_order_of_the_ids(kme: Kme, client: Client014) -> None:
    kme.keys(*reversed(IDS))
    container = await client.get_key_with_ids("s", IDS)
    assert [key.key_ID for key in container.keys] == IDS


async def test_refusals_carry_status_message_and_when_to_retry(kme: Kme, client: Client014) -> None:
    kme.status, kme.headers = 503, {"Retry-After": "7"}
    kme.body = b'{"message": "none left", "details": [{"a": "b"}]}'
    with pytest.raises(Etsi014Error) as caught:
        await client.get_key("s")
    error = caught.value
    assert (error.status, error.message, error.retry_after, error.details) == (503, "none left", 7.0, [{"a": "b"}])


@pytest.mark.parametrize("body", [b"", b"no json", b'"x"', b'{"message": 1}', b"\xff", b"[" * 90_000])
async def test_refusals_without_an_error_body_are_refusals_all_the_same(
    kme: Kme, client: Client014, body: bytes
) -> None:
    kme.status, kme.body, kme.headers = 401, body, {"Retry-After": "soon"}
    with pytest.raises(Etsi014Error) as caught:
        await client.status("s")
    assert (caught.value.status, caught.value.message, caught.value.retry_after) == (401, "", None)


async def test_messages_are_made_safe_to_show(kme: Kme, client: Client014) -> None:
    kme.status, kme.body = 400, json.dumps({"message": "\x1b[2J" + "x" * 10_000}).encode()
    with pytest.raises(Etsi014Error) as caught:
        await client.status("s")
    assert len(caught.value.message) <= 500
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    ("ids", "size", "asked"),
    [
        (IDS[:2], 256, {"number": 3}),
        (IDS, 256, {"number": 2}),
        (IDS[:1], 128, {"size": 256}),
        ([IDS[0], IDS[0]], 256, {"number": 2}),
        (IDS[:1], 0, {}),
    ],
)
async def test_other_keys_than_asked_for_are_refused(
    kme: Kme, client: Client014, ids: list[UUID], size: int, asked: dict[str, Any]
) -> None:
    kme.keys(*ids, size=size)
    with pytest.raises(Etsi014Invalid):
        await client.get_key("s", **asked)


async def test_keys_of_mixed_sizes_are_refused(kme: Kme, client: Client014) -> None:
    keys = [{"key_ID": str(IDS[place]), "key": b64encode(bytes(16 + place)).decode()} for place in range(2)]
    kme.body = json.dumps({"keys": keys}).encode()
    with pytest.raises(Etsi014Invalid):
        await client.get_key("s", number=2)


@pytest.mark.parametrize("given", [[uuid4()], IDS[1:2]])
async def test_keys_of_other_ids_are_refused(kme: Kme, client: Client014, given: list[UUID]) -> None:
    kme.keys(*given)
    with pytest.raises(Etsi014Invalid):
        await client.get_key_with_ids("s", IDS[:1])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"keys": [{"key_ID": "x", "key": "AAAA"}]}',
        b'{"keys": [{"key_ID": "00000000-0000-4000-8000-000000000000", "key": "SECRETSECRET!"}]}',
    ],
)
async def test_what_is_no_container_is_refused_without_being_shown(kme: Kme, client: Client014, body: bytes) -> None:
    kme.body = body
    with pytest.raises(Etsi014Invalid) as caught:
        await client.get_key("s")
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


STATUS: dict[str, Any] = {
    "source_KME_ID": "kme-1",
    "target_KME_ID": "kme-2",
    "master_SAE_ID": "sae-1",
    "slave_SAE_ID": "sae-2",
    "key_size": 352,
    "stored_key_count": 25_000,
    "max_key_count": 100_000,
    "max_key_per_request": 128,
    "max_key_size": 1_024,
    "min_key_size": 64,
    "max_SAE_ID_count": 0,
}


async def test_status(kme: Kme, client: Client014) -> None:
    kme.body = json.dumps(STATUS).encode()
    status = await client.status("sae-2")
    assert (status.key_size, status.stored_key_count, status.target_KME_ID) == (352, 25_000, "kme-2")


@pytest.mark.parametrize("wrong", [{"key_size": 8}, {"min_key_size": 0}, {"stored_key_count": -1}, {"key_size": "352"}])
async def test_a_status_that_makes_no_sense_is_refused(kme: Kme, client: Client014, wrong: dict[str, Any]) -> None:
    kme.body = json.dumps(STATUS | wrong).encode()
    with pytest.raises(Etsi014Invalid):
        await client.status("sae-2")


async def test_no_request_leaves_towards_another_kme(kme: Kme) -> None:
    client = kme.client("kme-2")
    with pytest.raises(Etsi014Unreachable, match="kme-2"):
        await client.get_key("s")
    assert kme.requests == []
    await client.close()


async def test_a_kme_of_another_authority_is_not_called(kme: Kme) -> None:
    directory = kme.directory / "other"
    directory.mkdir()
    other = Authority(directory, "other")
    url = kme.client()._base.removesuffix("/api/v1/keys/")
    client = Client014(url, classic_client(*kme.trust.issue("sae-1"), other.trust), expected_kme=None)
    with pytest.raises(Etsi014Unreachable):
        await client.status("s")
    assert kme.requests == []
    await client.close()


async def test_a_late_answer_is_no_answer(kme: Kme, client: Client014) -> None:
    kme.hold = True
    with pytest.raises(Etsi014Unreachable, match="no answer within"):
        await client.status("s", deadline=0.2)


async def test_answers_are_bounded(kme: Kme, client: Client014) -> None:
    kme.body = b" " * (MAXIMUM_ANSWER + 1)
    with pytest.raises(Etsi014Unreachable, match="longer"):
        await client.get_key("s")


async def test_redirects_are_not_followed(kme: Kme, client: Client014) -> None:
    kme.status, kme.headers = 307, {"Location": "https://127.0.0.1:1/"}
    with pytest.raises(Etsi014Error) as caught:
        await client.get_key("s")
    assert caught.value.status == 307
    assert len(kme.requests) == 1


async def test_nobody_listening(kme: Kme) -> None:
    tls = classic_client(*kme.trust.issue("sae-1"), kme.trust.trust)
    client = Client014("https://127.0.0.1:1", tls, expected_kme=None)
    with pytest.raises(Etsi014Unreachable):
        await client.status("s")
    await client.close()


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.parametrize("url", ["http://x", "x", "https://", "https://u:p@h/", "https://h/?q=1"])
def test_the_url_is_checked(directory: Path, url: str) -> None:
    trust = Authority(directory, "trust")
    with pytest.raises(ValueError):
        Client014(url, classic_client(*trust.issue("sae-1"), trust.trust), expected_kme=None)
