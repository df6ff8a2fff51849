"""Who gets through a handshake and who does not, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from OpenSSL import SSL
from OpenSSL._util import lib

from keyhaul.identity.names import Role
from keyhaul.transport import tls
from keyhaul.transport.interface import Routes
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.relay import Outcome
from keyhaul.transport.operations import CARRIER_OUTCOME
from keyhaul.transport.tls_policy import TlsUnusable, use_key
from keyhaul.transport.tls_selftest import self_test
from tests.keyhaul.transport.house import House
from tests.keyhaul.transport.pki import Pki, leaf_of, service

AKMS = service(Role.AKMS, "1")
CKMS = service(Role.CKMS, "1")
MESSAGE = Outcome(batch="ab")


def routes() -> Routes:
    served = Routes()

    async def accept(_peer: object, _message: object) -> Accepted:
        return Accepted()

    served.add(CARRIER_OUTCOME, accept)
    return served


async def refused(house: House, failure: str, **client: Any) -> None:
    """Expect that a client's channel never comes to a call, and that the listener counted why."""
    listener = await house.listener(AKMS, routes(), identity=client.pop("server", None))
    channel = await house.channel(CKMS, AKMS, listener.address, **client)
    with pytest.raises(ServiceError) as caught:
        await channel.call(CARRIER_OUTCOME, MESSAGE, deadline=5)
    assert caught.value.code == ErrorCode.UNREACHABLE
    await house.until(lambda: house.counted("keyhaul_transport_handshake_failures_total", reason=failure) >= 1)


async def test_services_of_one_operator_talk(house: House) -> None:
    listener = await house.listener(AKMS, routes())
    channel = await house.channel(CKMS, AKMS, listener.address)
    await channel.call(CARRIER_OUTCOME, MESSAGE, deadline=5)
    certificate = await channel.peer_certificate()
    assert certificate is not None
    assert channel.connected


async def test_a_client_of_another_operator_is_refused(house: House, tmp_path: Path) -> None:
    foreign = Pki.make(tmp_path / "foreign").identity(CKMS)
    mixed = house.pki.identity(AKMS)
    shutil.copy(mixed.trust, foreign.trust)
    await refused(house, "certificate", identity=foreign)


async def test_a_server_of_another_operator_is_refused(house: House, tmp_path: Path) -> None:
    foreign = Pki.make(tmp_path / "foreign").identity(AKMS)
    await refused(house, "connection", server=foreign)


async def test_an_expired_client_is_refused(house: House) -> None:
    await refused(house, "certificate", identity=house.pki.identity(CKMS, days=(-3, -1)))


async def test_a_client_of_the_future_is_refused(house: House) -> None:
    await refused(house, "certificate", identity=house.pki.identity(CKMS, days=(1, 3)))


async def test_a_client_whose_authority_is_for_another_role_is_refused(house: House) -> None:
    await refused(house, "refused", identity=house.pki.identity(CKMS, signer=Role.UKMS))


async def test_a_server_of_another_name_is_refused(house: House) -> None:
    listener = await house.listener(service(Role.AKMS, "2"), routes())
    channel = await house.channel(CKMS, AKMS, listener.address)
    with pytest.raises(ServiceError, match="akms-2 answers instead of akms-1"):
        await channel.call(CARRIER_OUTCOME, MESSAGE, deadline=5)


async def test_revoked_certificates_are_refused_and_others_not(house: House) -> None:
    good, bad = house.pki.identity(CKMS, label="good"), house.pki.identity(CKMS, label="bad")
    house.pki.authority(Role.AKMS)
    house.pki.authority(Role.CKMS).revoked.append(leaf_of(bad))
    listener = await house.listener(AKMS, routes(), identity=house.pki.identity(AKMS, crl=True))
    channel = await house.channel(CKMS, AKMS, listener.address, identity=good)
    await channel.call(CARRIER_OUTCOME, MESSAGE, deadline=5)
    await refused(house, "certificate", identity=bad, server=house.pki.identity(AKMS, crl=True))


async def test_certificates_under_a_revoked_authority_are_refused(house: House) -> None:
    identity = house.pki.identity(CKMS)
    house.pki.authority(Role.AKMS)
    house.pki.root.revoked.append(house.pki.authority(Role.CKMS).certificate)
    await refused(house, "certificate", identity=identity, server=house.pki.identity(AKMS, crl=True))


async def test_without_a_current_list_of_an_authority_its_certificates_are_refused(house: House) -> None:
    identity = house.pki.identity(CKMS)
    server = house.pki.identity(AKMS, crl=True)
    assert server.crl is not None
    server.crl.write_bytes(house.pki.root.crl())
    await refused(house, "certificate", identity=identity, server=server)


class Raw:
    """A TLS client that keeps to no policy but its own."""

    def __init__(self, house: House, *, certificate: bool = True) -> None:
        identity = house.pki.identity(CKMS)
        self.received = 0
        self.session: SSL.Session | None = None
        self.context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self.context.set_alpn_protos([b"h2"])
        if certificate:
            chain = identity.certificates()
            self.context.use_certificate(chain[0])
            self.context.add_extra_chain_cert(chain[1])
            use_key(self.context, identity.key.read_bytes())

    async def talk(self, address: str, session: SSL.Session | None = None) -> bytes:
        """Shake hands and return the first bytes of the server, or raise."""
        self.received = 0
        connection = SSL.Connection(self.context, None)
        if session is not None:
            connection.set_session(session)
        connection.set_connect_state()
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            done = False
            while True:
                try:
                    if not done:
                        connection.do_handshake()
                        done = True
                    first = connection.recv(100)
                    self.session = connection.get_session()
                    return first
                except SSL.WantReadError:
                    pass
                try:
                    while True:
                        writer.write(connection.bio_read(65_536))
                except SSL.WantReadError:
                    pass
                data = await reader.read(65_536)
                if not data:
                    raise ConnectionResetError("the server closed")
                self.received += len(data)
                connection.bio_write(data)
        finally:
            writer.close()


async def test_the_raw_client_of_these_tests_gets_through(house: House) -> None:
    listener = await house.listener(AKMS, routes())
    assert await Raw(house).talk(listener.address)


async def test_a_client_without_certificate_is_refused(house: House) -> None:
    listener = await house.listener(AKMS, routes())
    with pytest.raises((ConnectionError, SSL.Error)):
        await Raw(house, certificate=False).talk(listener.address)
    await house.until(lambda: house.counted("keyhaul_transport_handshake_failures_total", reason="tls") == 1)


async def test_a_client_with_only_tls_1_2_is_refused(house: House) -> None:
    listener = await house.listener(AKMS, routes())
    raw = Raw(house)
    raw.context.set_max_proto_version(SSL.TLS1_2_VERSION)
    with pytest.raises((ConnectionError, SSL.Error)):
        await raw.talk(listener.address)


@pytest.mark.parametrize("group", [b"X25519", b"P-256", b"MLKEM768"])
async def test_a_client_with_a_weaker_group_is_refused(house: House, group: bytes) -> None:
    listener = await house.listener(AKMS, routes())
    raw = Raw(house)
    assert lib.SSL_CTX_set1_curves_list(raw.context._context, group) == 1
    with pytest.raises((ConnectionError, SSL.Error)):
        await raw.talk(listener.address)


async def test_a_client_without_ml_dsa_is_refused(house: House) -> None:
    listener = await house.listener(AKMS, routes())
    raw = Raw(house, certificate=False)
    lib.SSL_CTX_set1_sigalgs_list(raw.context._context, b"ECDSA+SHA256:ed25519")
    with pytest.raises((ConnectionError, SSL.Error)):
        await raw.talk(listener.address)


async def test_a_client_of_another_application_protocol_is_refused(house: House) -> None:
    listener = await house.listener(AKMS, routes())
    raw = Raw(house)
    raw.context.set_alpn_protos([b"http/1.1"])
    with pytest.raises((ConnectionError, SSL.Error)):
        await raw.talk(listener.address)


async def test_nothing_is_resumed(house: House) -> None:
    listener = await house.listener(AKMS, routes())
    raw = Raw(house)
    await raw.talk(listener.address)
    first = raw.received
    await raw.talk(listener.address, session=raw.session)
    assert raw.received > 10_000
    assert abs(raw.received - first) < 100


async def test_a_renewed_certificate_is_used_from_the_next_handshake_on(house: House) -> None:
    identity = house.pki.identity(AKMS)
    listener = await house.listener(AKMS, routes(), identity=identity)
    channel = await house.channel(CKMS, AKMS, listener.address)
    await channel.call(CARRIER_OUTCOME, MESSAGE, deadline=5)
    former = await channel.peer_certificate()

    renewed = house.pki.identity(AKMS, label="renewed")
    for name in ("certificate", "key"):
        os.replace(getattr(renewed, name), getattr(identity, name))
    again = await house.channel(CKMS, AKMS, listener.address)
    await again.call(CARRIER_OUTCOME, MESSAGE, deadline=5)
    assert (await again.peer_certificate()) == leaf_of(identity) != former
    assert (await channel.peer_certificate()) == former


async def test_broken_files_leave_the_former_in_use(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    identity = house.pki.identity(AKMS)
    listener = await house.listener(AKMS, routes(), identity=identity)
    identity.certificate.write_text("nothing of use")
    for _ in range(2):
        channel = await house.channel(CKMS, AKMS, listener.address)
        await channel.call(CARRIER_OUTCOME, MESSAGE, deadline=5)
    assert capsys.readouterr().out.count("the former stay") == 1


def test_a_key_of_another_certificate_is_refused_at_start(pki: Pki) -> None:
    identity, other = pki.identity(AKMS), pki.identity(CKMS)
    shutil.copy(other.key, identity.key)
    with pytest.raises(TlsUnusable, match="belongs to the certificate"):
        tls.service_server(identity)


def test_certificates_that_are_not_ml_dsa_are_refused_at_start(classic_pki: Pki) -> None:
    with pytest.raises(TlsUnusable, match="not ML-DSA-65"):
        tls.service_server(classic_pki.identity(AKMS))


def test_an_openssl_without_the_algorithms_stops_the_start(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = pki.identity(AKMS)
    self_test.cache_clear()
    monkeypatch.setattr("keyhaul.transport.tls_selftest.SERVICE_GROUP", "X25519MLKEM2048")
    with pytest.raises(TlsUnusable, match="lacks X25519MLKEM2048"):
        tls.service_client(identity)
    monkeypatch.undo()
    self_test()


def test_a_handshake_that_comes_to_another_group_stops_the_start(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = pki.identity(AKMS)
    self_test.cache_clear()
    monkeypatch.setattr(SSL.Connection, "get_group_name", lambda self: "x25519")
    with pytest.raises(TlsUnusable, match=r"came to TLSv1\.3 with x25519"):
        tls.service_client(identity)
    monkeypatch.undo()
    self_test()


def test_an_encrypted_key_is_refused_without_asking_at_the_terminal(pki: Pki) -> None:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    identity = pki.identity(AKMS)
    key = identity.signing_key()
    identity.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    with pytest.raises(TlsUnusable):
        tls.service_server(identity)


@contextlib.asynccontextmanager
async def serve_classic(pki: Pki, **options: Any) -> AsyncIterator[str]:
    """An aiohttp server that answers with the caller's common name."""
    identity = pki.identity(service(Role.QKDM, "1"), label="kme")
    context = tls.classic_server(identity.certificate, identity.key, identity.trust, **options)

    async def name(request: web.Request) -> web.Response:
        assert request.transport is not None
        await request.read()
        return web.Response(text=tls.peer_common_name(request.transport))

    application = web.Application(client_max_size=2**25)
    application.router.add_route("*", "/", name)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"https://{host}:{port}/"
    finally:
        await runner.cleanup()


async def test_aiohttp_serves_and_calls_over_the_classic_contexts(classic_pki: Pki) -> None:
    async with serve_classic(classic_pki) as url:
        identity = classic_pki.identity(service(Role.CKMS, "8"))
        context = tls.classic_client(identity.certificate, identity.key, identity.trust, common_name="qkdm-1")
        async with aiohttp.ClientSession() as session:
            for size in (0, 3_000_000):
                async with session.post(url, ssl=context, data=io.BytesIO(b"x" * size)) as answer:
                    assert await answer.text() == "ckms-8"


async def test_a_classic_server_of_another_common_name_is_refused(classic_pki: Pki) -> None:
    async with serve_classic(classic_pki) as url:
        identity = classic_pki.identity(service(Role.CKMS, "8"))
        context = tls.classic_client(identity.certificate, identity.key, identity.trust, common_name="qkdm-2")
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(url, ssl=context)


async def test_pythons_own_tls_gets_through_with_and_only_with_a_certificate(classic_pki: Pki) -> None:
    async with serve_classic(classic_pki) as url:
        identity = classic_pki.identity(service(Role.CKMS, "8"))
        context = ssl.create_default_context(cafile=str(identity.trust))
        context.check_hostname = False
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(url, ssl=context)
            context.load_cert_chain(identity.certificate, identity.key)
            async with session.get(url, ssl=context) as answer:
                assert await answer.text() == "ckms-8"


@pytest.mark.parametrize(("minimum", "welcome"), [("1.2", True), ("1.3", False)])
async def test_old_encryptors_are_served_only_where_configured(classic_pki: Pki, minimum: Any, welcome: bool) -> None:
    async with serve_classic(classic_pki, minimum_tls=minimum) as url:
        identity = classic_pki.identity(service(Role.CKMS, "8"))
        context = ssl.create_default_context(cafile=str(identity.trust))
        context.check_hostname = False
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(identity.certificate, identity.key)
        async with aiohttp.ClientSession() as session:
            if welcome:
                async with session.get(url, ssl=context) as answer:
                    assert await answer.text() == "ckms-8"
            else:
                with pytest.raises(aiohttp.ClientError):
                    await session.get(url, ssl=context)


async def test_those_who_know_the_hybrid_group_get_it(classic_pki: Pki) -> None:
    async with serve_classic(classic_pki) as url:
        identity = classic_pki.identity(service(Role.CKMS, "8"))
        context = tls.classic_client(identity.certificate, identity.key, identity.trust)
        async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as answer:
            assert answer.connection is not None or answer.status == 200
            transport = answer.connection.transport if answer.connection else None
            if transport is not None:
                assert tls.session_of(transport).group() == "X25519MLKEM768"
