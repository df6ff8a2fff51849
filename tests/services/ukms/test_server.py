"""The interface to SAEs over real TLS connections: HTTP as encryptors speak it, and every error in JSON."""

import asyncio
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from keyhaul.store.interface import StoreUnavailable
from services.ukms import connections, etsi014
from services.ukms import server as server_module

Ask = Callable[..., Any]

UNKNOWN = "bc490419-7d60-487f-adc1-4ddcc177c139"


def client_tls(certificates: Any, name: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates.path("ca.pem"))
    if name is not None:
        context.load_cert_chain(certificates.path(f"{name}.pem"), certificates.path(f"{name}.key"))
    return context


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.json: Any = json.loads(body) if body else None


@pytest.fixture
async def served(site: Any, serve: Any) -> Any:
    return await serve(site)


@pytest.fixture
def ask(served: Any, certificates: Any) -> Ask:
    """Sends a request as an SAE; each call has a connection of its own unless `session` says otherwise."""

    async def send(
        path: str, body: Any = None, *, sae: str = "a", method: str | None = None, raw: bytes | None = None, **more: Any
    ) -> Answer:
        data = raw if raw is not None else (None if body is None else json.dumps(body).encode())
        verb = method or ("GET" if data is None else "POST")
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_tls(certificates, sae))) as session,
            session.request(
                verb,
                f"https://localhost:{served.address.rpartition(':')[2]}/api/v1/keys/{path}",
                data=data,
                server_hostname="localhost",
                **more,
            ) as response,
        ):
            return Answer(response.status, response.headers, await response.read())

    return send


@pytest.fixture
async def connect(served: Any, certificates: Any) -> AsyncIterator[Any]:
    """Opens a connection of bytes as an SAE."""
    writers = []

    async def opened(sae: str = "a", host: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address, _, port = served.address.rpartition(":")
        reader, writer = await asyncio.open_connection(
            address, int(port), ssl=client_tls(certificates, sae), server_hostname="localhost", local_addr=(host, 0)
        )
        writers.append(writer)
        return reader, writer

    yield opened
    for writer in writers:
        writer.transport.abort()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status = int(head.split()[1])
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
        }
        return Answer(status, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


def request(path: str, *, method: str = "GET", body: bytes = b"", headers: str = "") -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} /api/v1/keys/{path} HTTP/1.1\r\nHost: x\r\n{length}{headers}\r\n".encode() + body


async def test_keys_by_get_and_post_and_the_same_at_the_slave(site: Any, ask: Ask) -> None:
    site.link.held_for = ["b"]
    got = await ask("b/enc_keys?number=2&size=128")
    posted = await ask("b/enc_keys", {"number": 1, "extension_optional": [{"abc_age": 1}]})
    empty = await ask("b/enc_keys", raw=b"", method="POST")
    for answer in (got, posted, empty):
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Server" not in answer.headers
    assert [len(answer.json["keys"]) for answer in (got, posted, empty)] == [2, 1, 1]
    key = posted.json["keys"][0]
    assert set(key) == {"key_ID", "key"}
    assert (await ask(f"a/dec_keys?key_ID={key['key_ID']}", sae="b")).json == posted.json
    body = {"key_IDs": [{"key_ID": one["key_ID"]} for one in got.json["keys"]]}
    assert (await ask("a/dec_keys", body, sae="b")).json == got.json


async def test_multicast(site: Any, ask: Ask) -> None:
    site.link.held_for = ["b", "c"]
    keys = (await ask("b/enc_keys", {"number": 2, "additional_slave_SAE_IDs": ["c"]})).json
    body = {"key_IDs": [{"key_ID": key["key_ID"]} for key in keys["keys"]]}
    for slave in ("b", "c"):
        assert (await ask("a/dec_keys", body, sae=slave)).json == keys
    assert (await ask("b/enc_keys", {"additional_slave_SAE_IDs": ["c", "d", "e"]})).json == {
        "message": "no keys can be shared with the given slave SAE ID"
    }


async def test_status(ask: Ask) -> None:
    answer = await ask("b/status")
    assert answer.json == {
        "source_KME_ID": "kme-a",
        "target_KME_ID": "kme-b",
        "master_SAE_ID": "a",
        "slave_SAE_ID": "b",
        "key_size": 256,
        "stored_key_count": 0,
        "max_key_count": 1000,
        "max_key_per_request": 128,
        "max_key_size": 1024,
        "min_key_size": 64,
        "max_SAE_ID_count": 2,
    }


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("b/enc_keys?size=255", None, "size shall be a multiple of 8"),
        ("b/enc_keys", {"extension_mandatory": [{"x": 1}]}, "not all extension_mandatory parameters are supported"),
        (
            "b/dec_keys?key_ID=bc490419-7d60-487f-adc1-4ddcc177c139",
            None,
            "one or more keys specified are not found on KME",
        ),
        ("b/enc_keys?number=0", None, "number shall be at least 1"),
        ("b/enc_keys?number=129", None, "number shall be at most 128"),
        ("b/enc_keys?size=2048", None, "size shall be from 64 to 1024"),
        ("z/enc_keys", None, "no keys can be shared with the given slave SAE ID"),
        ("a/enc_keys", None, "no keys can be shared with the given slave SAE ID"),
        ("z/status", None, "no keys can be shared with the given slave SAE ID"),
        ("%2e%2e%2fstatus/enc_keys", None, "no keys can be shared with the given slave SAE ID"),
        ("b/status?number=1", None, "this request takes no parameters in the URL"),
        ("b/enc_keys?number=1", {}, "this request takes no parameters in the URL"),
        ("b/dec_keys", {"key_IDs": []}, "key_IDs names no key"),
    ],
)
async def test_400_with_its_message(ask: Ask, path: str, body: Any, message: str) -> None:
    answer = await ask(path, body)
    assert (answer.status, answer.json["message"]) == (400, message)
    assert answer.headers["Content-Type"] == "application/json"


async def test_an_sae_that_was_not_named_gets_401_with_a_body(site: Any, ask: Ask) -> None:
    site.link.held_for = ["b"]
    key = (await ask("b/enc_keys")).json["keys"][0]["key_ID"]
    answer = await ask(f"a/dec_keys?key_ID={key}", sae="c")
    assert answer.status == 401
    assert answer.json["message"]


async def test_a_certificate_whose_name_is_no_sae_id_gets_401(ask: Ask) -> None:
    answer = await ask("b/status", sae="no sae")
    assert (answer.status, list(answer.json)) == (401, ["message"])


async def test_a_valid_certificate_that_nobody_knows_gets_the_answer_for_an_unknown_slave(ask: Ask) -> None:
    stranger, unknown = await ask("b/enc_keys", sae="z"), await ask("nobody/enc_keys")
    assert (stranger.status, stranger.body) == (unknown.status, unknown.body) == (400, unknown.body)


async def test_other_urls_and_methods(ask: Ask) -> None:
    assert (await ask("b/other")).status == 404
    assert (await ask("b/status/")).json == {"message": "there is nothing at this URL"}
    answer = await ask("b/status", {}, method="PUT")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")
    assert (await ask("b/enc_keys", method="DELETE")).headers["Allow"] == "GET, POST"


async def test_no_keys_in_time_is_503_with_retry_after(sites: Any, serve: Any, connect: Any, site: Any) -> None:
    site.link.serving = False
    site.kme._patience = 0.05
    reader, writer = await connect()
    writer.write(request("b/enc_keys"))
    answer = await read_answer(reader)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.json == {"message": "not enough keys are available at present"}


async def test_a_failed_store_is_503(site: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> Any:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(site.vault, "fetch", fail)
    answer = await ask(f"b/dec_keys?key_ID={uuid.uuid4()}")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert "disk" not in answer.json["message"]


async def test_what_nobody_expected_is_500_in_json(site: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> Any:
        raise ArithmeticError("secret")

    monkeypatch.setattr(site.kme, "status", fail)
    answer = await ask("b/status")
    assert (answer.status, answer.json) == (500, {"message": "the KME failed"})
    assert "Server" not in answer.headers


async def test_a_client_without_a_certificate_is_not_served(served: Any, certificates: Any) -> None:
    host, _, port = served.address.rpartition(":")
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=client_tls(certificates, None), server_hostname="localhost"
    )
    writer.write(request("b/status"))
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await read_answer(reader)
    writer.transport.abort()


async def test_a_connection_serves_many_requests_whatever_the_host_header(connect: Any) -> None:
    reader, writer = await connect()
    for _ in range(3):
        writer.write(request("b/status").replace(b"Host: x", b"Host: somewhere.invalid:1"))
        assert (await read_answer(reader)).status == 200
    writer.write(request("b/status") + request("nobody/status"))
    assert (await read_answer(reader)).status == 200
    assert (await read_answer(reader)).status == 400


async def test_connection_close_is_honoured(connect: Any) -> None:
    reader, writer = await connect()
    writer.write(request("b/status", headers="Connection: close\r\n"))
    answer = await read_answer(reader)
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await reader.read() == b""


async def test_http_1_0_is_answered(connect: Any) -> None:
    reader, writer = await connect()
    writer.write(b"GET /api/v1/keys/b/status HTTP/1.0\r\n\r\n")
    assert (await read_answer(reader)).status == 200
    assert await reader.read() == b""


async def test_an_old_connection_ends_with_its_next_answer(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LIFE_SECONDS", 0.0)
    reader, writer = await connect()
    writer.write(request("b/status"))
    assert (await read_answer(reader)).headers["connection"] == "close"


async def test_expect_100_continue(site: Any, connect: Any) -> None:
    reader, writer = await connect()
    writer.write(request("b/enc_keys", method="POST", headers="Expect: 100-continue\r\nContent-Length: 2\r\n"))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{}")
    assert (await read_answer(reader)).status == 200


async def test_chunked_bodies_and_any_content_type_are_read(ask: Ask) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"num'
        yield b'ber": 1}'

    async def send(**more: Any) -> Answer:
        return await ask("b/enc_keys", **more)  # type: ignore[no-any-return]

    assert (await send(raw=chunks(), method="POST")).status == 200
    assert (await send(raw=b'{"number": 1}', headers={"Content-Type": "text/plain"})).status == 200
    answer = await send(raw=b"number=1", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (answer.status, answer.json["message"]) == (400, "the body is not a key request in JSON")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_413(ask: Ask, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield b" " * 65_536

    raw: Any = pieces() if chunked else b" " * (etsi014.MAXIMUM_BODY + 1)
    answer = await ask("b/enc_keys", raw=raw, method="POST")
    assert (answer.status, list(answer.json)) == (413, ["message"])


async def test_a_compressed_body_is_refused(ask: Ask) -> None:
    answer = await ask("b/enc_keys", raw=b"x", headers={"Content-Encoding": "gzip"})
    assert (answer.status, list(answer.json)) == (415, ["message"])


@pytest.mark.parametrize(
    "junk",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /api/v1/keys/b/status HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(500)) + b"\r\n",
        b"POST /api/v1/keys/b/enc_keys HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /api/v1/keys/b/enc_keys HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_400_in_json_and_the_connection_ends(
    served: Any, connect: Any, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await connect()
    writer.write(junk)
    answer = await read_answer(reader)
    assert (answer.status, list(answer.json)) == (400, ["message"])
    assert "server" not in answer.headers
    assert await reader.read() == b""


async def test_a_body_with_broken_chunks_is_400(connect: Any) -> None:
    reader, writer = await connect()
    writer.write(request("b/enc_keys", method="POST", headers="Transfer-Encoding: chunked\r\n") + b"zz\r\n{}\r\n")
    answer = await read_answer(reader)
    assert (answer.status, list(answer.json)) == (400, ["message"])


async def test_a_slow_head_ends_the_connection(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.02)
    reader, writer = await connect()
    writer.write(b"GET /api/v1/keys/b/status HT")
    async with asyncio.timeout(5):
        assert await reader.read() == b""


async def test_a_slow_body_is_408(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "BODY_SECONDS", 0.02)
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.02)
    reader, writer = await connect()
    writer.write(request("b/enc_keys", method="POST", headers="Content-Length: 20\r\n") + b"{")
    answer = await read_answer(reader)
    assert (answer.status, list(answer.json)) == (408, ["message"])
    assert answer.headers["connection"] == "close"


async def test_connections_beyond_the_limit_are_closed(site: Any, serve: Any, certificates: Any) -> None:
    server = await serve(site, maximum_connections=2)
    host, _, port = server.address.rpartition(":")
    writers = []
    for _ in range(2):
        reader, writer = await asyncio.open_connection(
            host, int(port), ssl=client_tls(certificates, "a"), server_hostname="localhost"
        )
        writer.write(request("b/status"))
        assert (await read_answer(reader)).status == 200
        writers.append(writer)
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=client_tls(certificates, "a"), server_hostname="localhost"
    )
    writers.append(writer)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        writer.write(request("b/status"))
        await read_answer(reader)
    for writer in writers:
        writer.transport.abort()


async def test_a_client_that_leaves_gives_its_place_and_no_key_is_lost(site: Any, connect: Any) -> None:
    site.link.serving = False
    _, writer = await connect()
    writer.write(request("b/enc_keys"))
    asked = await site.link.wait_for_request()
    writer.transport.abort()
    (buffer,) = site.supply.buffers
    async with asyncio.timeout(5):
        while buffer.waiting:
            await asyncio.sleep(0.001)
    push, _ = await site.link.push(asked)
    assert [stored.key_id for _, _, stored in await site.vault.at_hand()] == push.key_ids


async def test_a_stop_finishes_what_runs(site: Any, served: Any, connect: Any) -> None:
    site.link.serving = False
    reader, writer = await connect()
    writer.write(request("b/enc_keys"))
    asked = await site.link.wait_for_request()
    draining = asyncio.create_task(served.drain(5.0))
    await asyncio.sleep(0)
    await site.link.push(asked)
    assert (await read_answer(reader)).status == 200
    await draining
    assert await reader.read() == b""


async def test_a_stop_answers_those_who_wait_with_503(site: Any, served: Any, connect: Any) -> None:
    site.link.serving = False
    reader, writer = await connect()
    writer.write(request("b/enc_keys"))
    await site.link.wait_for_request()
    await served.drain(0.01)
    site.supply.close()
    assert (await read_answer(reader)).status == 503


async def test_curl(served: Any, certificates: Any, site: Any, key_bits: Any) -> None:
    port = served.address.rpartition(":")[2]
    process = await asyncio.create_subprocess_exec(
        "curl",
        "--silent",
        "--show-error",
        "--fail-with-body",
        "--cacert",
        certificates.path("ca.pem"),
        "--cert",
        certificates.path("a.pem"),
        "--key",
        certificates.path("a.key"),
        "--json",
        '{"number": 2, "size": 64}',
        f"https://localhost:{port}/api/v1/keys/b/enc_keys",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err
    assert [len(key["key"]) for key in json.loads(out)["keys"]] == [12, 12]


async def test_no_key_material_is_logged(
    site: Any, ask: Ask, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(0)
    keys = (await ask("b/enc_keys", {"number": 3})).json["keys"]
    await ask("b/enc_keys", {"number": "x"})
    captured = capfd.readouterr()
    for key in keys:
        assert key["key"] not in caplog.text + captured.out + captured.err


async def test_many_at_a_time(site: Any, connect: Any) -> None:
    async def client() -> list[str]:
        reader, writer = await connect()
        found = []
        for _ in range(5):
            writer.write(request("b/enc_keys"))
            found.append((await read_answer(reader)).json["keys"][0]["key_ID"])
        return found

    found = [one for several in await asyncio.gather(*(client() for _ in range(8))) for one in several]
    assert len(set(found)) == 40


async def test_metrics_name_no_users(site: Any, ask: Ask) -> None:
    await ask("b/enc_keys")
    assert site.metrics.requests.labels("enc_keys", 200)._value.get() == 1
    assert site.metrics.issued.labels("master")._value.get() == 1


async def test_what_is_kept_for_a_program_is_not_for_the_same_sae_elsewhere(
    site: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs of one SAE are told apart by the address they come from, whatever connection they use."""
    asked: list[str] = []
    answer = site.kme.enc_keys

    async def enc_keys(caller: Any, slave: str, wanted: Any, program: str) -> Any:
        asked.append(program)
        return await answer(caller, slave, wanted, program)

    monkeypatch.setattr(site.kme, "enc_keys", enc_keys)
    for host in ("127.0.0.1", "127.0.0.2", "127.0.0.1"):
        reader, writer = await connect(host=host)
        for method in ("GET", "POST"):
            writer.write(request("b/enc_keys", method=method))
            assert (await read_answer(reader)).status == 200
    first, second = asked[0], asked[2]
    assert first != second
    assert asked == [first, first, second, second, first, first]
