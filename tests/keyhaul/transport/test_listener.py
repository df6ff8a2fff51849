"""What a listener endures: crowds of connections, half-open ones, silent ones, floods; and calls in reverse."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hyperframe.frame import PingFrame, SettingsFrame

from keyhaul.identity.names import Role
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.keepalive import SERVED
from keyhaul.transport.listener import ListenerSettings
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.link import SignedHello
from keyhaul.transport.messages.peer import Query, QueryReply
from keyhaul.transport.operations import LINK_HELLO, PEER_QUERY
from keyhaul.transport.reverse import ReverseChannel
from keyhaul.transport.tls import service_client
from keyhaul.transport.tls_policy import REVERSE
from keyhaul.transport.wire import WireSettings
from tests.keyhaul.transport.house import QUICK, House
from tests.keyhaul.transport.pki import service

A, B = service(Role.AKMS, "1"), service(Role.AKMS, "2")
CKMS, UKMS = service(Role.CKMS, "1"), service(Role.UKMS, "1")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
HELLO = SignedHello(body=b"hello", signature=b"")


def place(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def querying() -> Routes:
    routes = Routes()

    async def handler(_peer: Peer, _query: Query) -> QueryReply:
        return QueryReply(states=[])

    routes.add(PEER_QUERY, handler)
    return routes


def greeting(word: bytes = b"!") -> Routes:
    routes = Routes()

    async def handler(_peer: Peer, hello: SignedHello) -> SignedHello:
        return SignedHello(body=hello.body + word, signature=b"")

    routes.add(LINK_HELLO, handler)
    return routes


async def raw_connection(house: House, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A peer with a good certificate that speaks whatever the test writes."""
    host, port = place(address)
    return await asyncio.open_connection(host, port, ssl=service_client(house.pki.identity(A)))


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What the peer sends until it closes."""
    async with asyncio.timeout(10):
        received = b""
        try:
            while data := await reader.read(65_536):
                received += data
        except ConnectionError:
            pass
        return received


async def test_half_open_handshakes_do_not_keep_others_out(house: House) -> None:
    listener = await house.listener(B, querying(), settings=ListenerSettings(half_open=4))
    silent = [await asyncio.open_connection(*place(listener.address)) for _ in range(12)]
    channel = await house.channel(A, B, listener.address)
    await channel.call(PEER_QUERY, Query(batches=[]), deadline=10)
    assert len(listener._half_open) <= 4
    assert house.counted("keyhaul_transport_handshake_failures_total", reason="crowded") >= 8
    for _, writer in silent:
        writer.close()


async def test_a_handshake_that_does_not_go_on_is_ended(house: House) -> None:
    listener = await house.listener(B, settings=ListenerSettings(handshake=0.05))
    reader, writer = await asyncio.open_connection(*place(listener.address))
    writer.write(b"\x16\x03\x01")
    assert await ended(reader) == b""
    await house.until(lambda: house.counted("keyhaul_transport_handshake_failures_total", reason="timeout") == 1)
    writer.close()


async def test_what_is_no_tls_is_ended(house: House) -> None:
    listener = await house.listener(B)
    reader, writer = await asyncio.open_connection(*place(listener.address))
    writer.write(PREFACE)
    await ended(reader)
    await house.until(lambda: house.counted("keyhaul_transport_handshake_failures_total", reason="tls") == 1)
    writer.close()


async def test_connections_beyond_the_limit_are_refused(house: House) -> None:
    listener = await house.listener(B, querying(), settings=ListenerSettings(connections=1))
    first = await house.channel(A, B, listener.address)
    await first.call(PEER_QUERY, Query(batches=[]), deadline=5)
    third = service(Role.AKMS, "3")
    second = await house.channel(third, B, listener.address)
    with pytest.raises(ServiceError) as caught:
        await second.call(PEER_QUERY, Query(batches=[]), deadline=5)
    assert caught.value.code == ErrorCode.UNREACHABLE
    await first.call(PEER_QUERY, Query(batches=[]), deadline=5)


async def test_a_peer_that_connects_again_and_again_loses_its_oldest(house: House) -> None:
    listener = await house.listener(B, querying(), settings=ListenerSettings(connections_per_peer=2))
    raw = [await raw_connection(house, listener.address) for _ in range(3)]
    assert await ended(raw[0][0])
    await house.until(lambda: len(listener._wires[A]) == 2)
    for _, writer in raw:
        writer.close()


async def test_a_connection_that_never_speaks_http2_is_ended(house: House) -> None:
    settings = ListenerSettings(served=WireSettings(keepalive=SERVED, ready=0.05))
    listener = await house.listener(B, settings=settings)
    reader, writer = await raw_connection(house, listener.address)
    assert await ended(reader)
    writer.close()


@pytest.mark.parametrize(
    ("noise", "kind"),
    [
        (PingFrame(0, opaque_data=b"12345678").serialize() * 1_000, "pings"),
        (SettingsFrame(0).serialize() * 1_000, "settings"),
        (b"\0\0\1\xfa\0\0\0\0\0?" * 20_000, "controls"),
        (b"\xff" * 100_000, "frame-size"),
        (b"\0\0\x08\x06\0\0\0\0\x01" + bytes(8), "protocol"),
    ],
)
async def test_floods_and_nonsense_are_counted_and_ended_with_goaway(house: House, noise: bytes, kind: str) -> None:
    listener = await house.listener(B)
    reader, writer = await raw_connection(house, listener.address)
    writer.write(PREFACE + noise)
    received = await ended(reader)
    await house.until(lambda: house.counted("keyhaul_transport_floods_total", kind=kind) == 1)
    assert not received or b"\x07" in received
    writer.close()


async def test_a_peer_that_does_not_read_is_cut_off(house: House) -> None:
    big = Routes()

    async def handler(_peer: Peer, _query: Query) -> QueryReply:
        return QueryReply(states=[], critical=("x" * 8_000_000,))

    big.add(PEER_QUERY, handler)
    settings = ListenerSettings(served=WireSettings(keepalive=SERVED, write=0.05))
    listener = await house.listener(B, big, settings=settings)
    _reader, writer = await raw_connection(house, listener.address)
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.settings import SettingCodes

    client = H2Connection(H2Configuration())
    client.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = 2**30
    client.local_settings.acknowledge()
    client.initiate_connection()
    client.increment_flow_control_window(2**30)
    reading: Any = writer.transport
    reading.pause_reading()
    for stream in (1, 3, 5, 7):
        client.send_headers(
            stream, [(":method", "POST"), (":scheme", "https"), (":authority", "x"), (":path", "/v1/peer.query")]
        )
        client.send_data(stream, b'{"v":1,"batches":[]}', end_stream=True)
    writer.write(client.data_to_send())
    await house.until(lambda: bool(listener._wires))
    await house.until(lambda: not listener._wires)
    writer.transport.abort()


async def test_calls_travel_back_on_a_connection_that_the_peer_dialled(house: House) -> None:
    listener = await house.listener(A)
    calls = listener.reverse(UKMS)
    assert calls is listener.reverse(UKMS)
    with pytest.raises(ServiceError) as caught:
        await calls.call(LINK_HELLO, HELLO, deadline=5)
    assert caught.value.code == ErrorCode.UNREACHABLE
    assert not calls.connected

    channel = ReverseChannel(
        UKMS, A, listener.address, service_client(house.pki.identity(UKMS)), greeting(), settings=QUICK
    )
    await channel.start()
    await house.until(lambda: calls.connected)
    assert (await calls.call(LINK_HELLO, HELLO, deadline=5)).body == b"hello!"
    certificate = await calls.peer_certificate()
    assert certificate is not None
    await channel.close()
    await house.until(lambda: not calls.connected)


async def test_a_reverse_connection_is_dialled_again(house: House) -> None:
    listener = await house.listener(A)
    channel = ReverseChannel(
        UKMS, A, listener.address, service_client(house.pki.identity(UKMS)), greeting(), settings=QUICK
    )
    await channel.start()
    calls: Any = listener.reverse(UKMS)
    for _ in range(3):
        await house.until(lambda: calls.connected)
        assert (await calls.call(LINK_HELLO, HELLO, deadline=5)).body == b"hello!"
        calls._standing().abort("the test cuts it")
    await channel.close()


async def test_a_newer_reverse_connection_replaces_the_older(house: House) -> None:
    listener = await house.listener(A)
    tls = service_client(house.pki.identity(UKMS))
    first = ReverseChannel(UKMS, A, listener.address, tls, greeting(b"1"), settings=QUICK)
    second = ReverseChannel(UKMS, A, listener.address, tls, greeting(b"2"), settings=QUICK)
    calls: Any = listener.reverse(UKMS)
    await first.start()
    await house.until(lambda: calls.connected)
    assert (await calls.call(LINK_HELLO, HELLO, deadline=5)).body == b"hello1"
    old = calls._standing()
    first._dialler._backoff.next = lambda: 60.0  # type: ignore[method-assign]
    first._dialler._settings = type(first._dialler._settings)(settled=3_600.0)
    await second.start()
    await house.until(lambda: calls._caller is not old and calls.connected)
    assert (await calls.call(LINK_HELLO, HELLO, deadline=5)).body == b"hello2"
    await house.until(old.gone.is_set)
    assert calls.connected
    await first.close()
    await second.close()


async def test_the_table_of_operations_holds_in_reverse(house: House) -> None:
    listener = await house.listener(A)
    routes = greeting()
    channel = ReverseChannel(
        UKMS, A, listener.address, service_client(house.pki.identity(UKMS)), routes, settings=QUICK
    )
    await channel.start()
    calls = listener.reverse(UKMS)
    await house.until(lambda: calls.connected)
    with pytest.raises(ServiceError) as caught:
        await calls.exchange("/v1/peer.query", Query(batches=[]), QueryReply, deadline=5)
    assert caught.value.code == ErrorCode.FORBIDDEN
    await channel.close()


async def test_only_a_ukms_may_ask_to_be_called_in_reverse(house: House) -> None:
    listener = await house.listener(A)
    with pytest.raises(ValueError, match="does not call ckms in reverse"):
        listener.reverse(CKMS)
    host, port = place(listener.address)
    tls = service_client(house.pki.identity(CKMS)).offering(REVERSE)
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    await ended(reader)
    await house.until(lambda: house.counted("keyhaul_transport_handshake_failures_total", reason="refused") == 1)
    writer.close()


async def test_an_address_in_use_is_told(house: House) -> None:
    listener = await house.listener(A)
    with pytest.raises(OSError, match="cannot listen on"):
        await house.listener(B, address=listener.address)
