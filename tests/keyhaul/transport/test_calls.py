"""Calls between two services over real connections: what they carry, who may make them, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import ClassVar

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection

from keyhaul.identity.names import Role
from keyhaul.transport.channel import Channel, ChannelSettings
from keyhaul.transport.dialling import DialSettings
from keyhaul.transport.interface import Peer, Routes
from keyhaul.transport.keepalive import SERVED, KeepaliveTimes
from keyhaul.transport.limits import Limits
from keyhaul.transport.listener import ListenerSettings
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.link import Sealed, Wake
from keyhaul.transport.messages.peer import Query, QueryReply
from keyhaul.transport.messages.relay import Submit
from keyhaul.transport.operations import CARRIER_SUBMIT, PEER_QUERY, RELAY_FORWARD
from keyhaul.transport.tls import service_client, service_server
from keyhaul.transport.wire import WireSettings
from tests.keyhaul.transport.house import QUICK, House
from tests.keyhaul.transport.pki import service

A, B = service(Role.AKMS, "1"), service(Role.AKMS, "2")
CKMS, UKMS = service(Role.CKMS, "1"), service(Role.UKMS, "1")

Answering = Callable[[Peer, Query], Awaitable[QueryReply]]


async def at_once(_peer: Peer, _query: Query) -> QueryReply:
    return QueryReply(states=[])


def querying(handler: Answering = at_once) -> Routes:
    routes = Routes()
    routes.add(PEER_QUERY, handler)
    return routes


async def a_pair(
    house: House,
    handler: Answering = at_once,
    *,
    listening: ListenerSettings | None = None,
    calling: ChannelSettings | None = None,
) -> Channel:
    listener = await house.listener(B, querying(handler), settings=listening)
    return await house.channel(A, B, listener.address, settings=calling)


async def refusal(channel: Channel, *, deadline: float = 5.0) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await channel.call(PEER_QUERY, Query(batches=[]), deadline=deadline)
    return caught.value


async def test_the_handler_sees_the_verified_caller_and_the_typed_request(house: House) -> None:
    seen: list[tuple[Peer, Query]] = []

    async def handler(peer: Peer, query: Query) -> QueryReply:
        seen.append((peer, query))
        return QueryReply(states=[])

    channel = await a_pair(house, handler)
    reply = await channel.call(PEER_QUERY, Query(batches=["ab"]), deadline=5)
    [(peer, query)] = seen
    assert peer.name == A
    assert query.batches == ["ab"]
    assert reply.id == query.id
    assert house.counted("keyhaul_transport_requests_total", operation="peer.query", outcome="ok") == 1


async def test_message_ids_are_numbered_behind_a_prefix_of_the_process(house: House) -> None:
    channel = await a_pair(house)
    queries = [Query(batches=[]) for _ in range(3)]
    for query in queries:
        await channel.call(PEER_QUERY, query, deadline=5)
    prefixes, numbers = zip(*(query.id.split("-") for query in queries), strict=True)
    assert len(set(prefixes)) == 1
    assert [int(number) - int(numbers[0]) for number in numbers] == [0, 1, 2]


async def test_many_calls_share_one_connection(house: House) -> None:
    channel = await a_pair(house)
    await asyncio.gather(*(channel.call(PEER_QUERY, Query(batches=[]), deadline=10) for _ in range(600)))
    assert house.counted("keyhaul_transport_connections", direction="accepted", role="akms") == 1


async def test_large_messages_travel_both_ways(house: House) -> None:
    size = 12 * 1_048_576 - 1_024
    bits = bytes(range(256)) * (size // 256)
    routes = Routes()

    async def echo(_peer: Peer, sealed: Sealed) -> Sealed:
        return Sealed(header=b"h", clear=b"", secret=sealed.secret, tag=b"t")

    routes.add_sealed(RELAY_FORWARD, echo)
    other = service(Role.CKMS, "2")
    listener = await house.listener(other, routes)
    channel = await house.channel(CKMS, other, listener.address)
    message = Sealed(header=b"h", clear=b"", secret=bits, tag=b"t")
    replies = await asyncio.gather(
        *(channel.exchange(RELAY_FORWARD.path, message, Sealed, deadline=20) for _ in range(2))
    )
    assert all(reply is not None and reply.secret == bits for reply in replies)


async def test_a_message_beyond_the_limit_is_not_sent(house: House) -> None:
    listener = await house.listener(CKMS)
    channel = await house.channel(A, CKMS, listener.address)
    message = Submit(batch="", destination="", bits=bytes(13 * 1_048_576), service_class="", remaining_ms=1)
    with pytest.raises(ServiceError) as caught:
        await channel.call(CARRIER_SUBMIT, message, deadline=5)
    assert caught.value.code == ErrorCode.MALFORMED


async def test_a_listener_refuses_bodies_beyond_its_own_limit(house: House) -> None:
    small = ListenerSettings(served=WireSettings(keepalive=SERVED, limits=Limits(body=1_000)))
    channel = await a_pair(house, listening=small)
    with pytest.raises(ServiceError) as caught:
        await channel.call(PEER_QUERY, Query(batches=["x" * 100_000]), deadline=5)
    assert caught.value.code == ErrorCode.MALFORMED
    assert house.counted("keyhaul_transport_refused_total", reason="size") == 1
    await channel.call(PEER_QUERY, Query(batches=[]), deadline=5)


async def test_a_one_way_message_is_answered_with_nothing(house: House) -> None:
    seen: list[Sealed] = []
    routes = Routes()

    async def take(_peer: Peer, sealed: Sealed) -> None:
        seen.append(sealed)

    routes.add_sealed(RELAY_FORWARD, take)
    other = service(Role.CKMS, "2")
    listener = await house.listener(other, routes)
    channel = await house.channel(CKMS, other, listener.address)
    message = Sealed(header=b"h", clear=b"c", secret=b"s", tag=b"t")
    await channel.exchange(RELAY_FORWARD.path, message, None, deadline=5)
    assert seen[0].secret == b"s"


async def test_a_role_that_may_not_call_is_refused_counted_and_alarmed(house: House) -> None:
    called: list[Query] = []

    async def never(_peer: Peer, query: Query) -> QueryReply:
        called.append(query)
        return QueryReply(states=[])

    listener = await house.listener(B, querying(never))
    channel = await house.channel(UKMS, B, listener.address)
    with pytest.raises(ServiceError) as caught:
        await channel.exchange("/v1/peer.query", Query(batches=[]), QueryReply, deadline=5)
    assert caught.value.code == ErrorCode.FORBIDDEN
    assert not called
    assert house.counted("keyhaul_transport_refused_total", reason="role") == 1
    assert house.alarms == [("wrong-role", {"peer": "ukms-1", "operation": "peer.query"})]


async def test_the_role_is_checked_before_the_body_is_read(house: House) -> None:
    listener = await house.listener(B, querying())
    channel = await house.channel(UKMS, B, listener.address)
    with pytest.raises(ServiceError) as caught:
        await channel.exchange("/v1/peer.query", Accepted(v=99), QueryReply, deadline=5)
    assert caught.value.code == ErrorCode.FORBIDDEN


async def test_a_caller_does_not_even_try_what_its_role_must_not(house: House) -> None:
    listener = await house.listener(B)
    channel = await house.channel(UKMS, B, listener.address)
    with pytest.raises(ValueError, match=r"ukms may not call peer\.query on akms"):
        await channel.call(PEER_QUERY, Query(batches=[]), deadline=5)


@pytest.mark.parametrize("path", ["/v1/nothing", "/", "/v1/peer.void", "/v1/peer.query?x=1", "/v1/../v1/peer.query"])
async def test_what_is_not_served_is_not_found(house: House, path: str) -> None:
    channel = await a_pair(house)
    with pytest.raises(ServiceError) as caught:
        await channel.exchange(path, Query(batches=[]), QueryReply, deadline=5)
    assert caught.value.code == ErrorCode.NOT_FOUND


async def test_another_version_is_refused(house: House) -> None:
    channel = await a_pair(house)
    with pytest.raises(ServiceError) as caught:
        await channel.exchange(PEER_QUERY.path, Query(v=2, batches=[]), QueryReply, deadline=5)
    assert caught.value.code == ErrorCode.VERSION


async def test_a_message_of_another_type_is_malformed(house: House) -> None:
    channel = await a_pair(house)
    with pytest.raises(ServiceError) as caught:
        await channel.exchange(PEER_QUERY.path, Wake(link="1-2"), QueryReply, deadline=5)
    assert caught.value.code == ErrorCode.MALFORMED


@pytest.mark.parametrize("code", list(ErrorCode))
async def test_a_handlers_refusal_reaches_the_caller(house: House, code: ErrorCode) -> None:
    async def handler(_peer: Peer, _query: Query) -> QueryReply:
        raise ServiceError(code, "because", retry_after_ms=250)

    error = await refusal(await a_pair(house, handler))
    assert (error.code, error.message, error.retry_after_ms) == (code, "because", 250)


async def test_an_unexpected_failure_is_logged_and_told_without_detail(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    async def handler(_peer: Peer, _query: Query) -> QueryReply:
        raise RuntimeError("key bits: 0123456789abcdef")

    error = await refusal(await a_pair(house, handler))
    assert error.code == ErrorCode.INTERNAL
    logged = capsys.readouterr().out
    assert error.message.removeprefix("error ") in logged
    assert "RuntimeError" in logged
    assert "0123456789abcdef" not in logged + error.message


async def test_a_handlers_own_timeout_is_not_the_callers_deadline(house: House) -> None:
    async def handler(_peer: Peer, _query: Query) -> QueryReply:
        raise TimeoutError

    assert (await refusal(await a_pair(house, handler))).code == ErrorCode.INTERNAL


async def test_the_caller_stops_waiting_and_the_handler_is_stopped(house: House) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def handler(_peer: Peer, _query: Query) -> QueryReply:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        raise AssertionError

    channel = await a_pair(house, handler)
    error = await refusal(channel, deadline=0.15)
    assert error.code == ErrorCode.DEADLINE
    assert started.is_set()
    async with asyncio.timeout(5):
        await stopped.wait()


async def test_no_time_left_is_no_call(house: House) -> None:
    channel = await a_pair(house)
    assert (await refusal(channel, deadline=0)).code == ErrorCode.DEADLINE


async def test_a_cancelled_call_stops_its_handler(house: House) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def handler(_peer: Peer, _query: Query) -> QueryReply:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        raise AssertionError

    channel = await a_pair(house, handler)
    call = asyncio.create_task(channel.call(PEER_QUERY, Query(batches=[]), deadline=30))
    await started.wait()
    call.cancel()
    async with asyncio.timeout(5):
        await stopped.wait()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_more_calls_than_may_wait_are_busy(house: House) -> None:
    go_on = asyncio.Event()

    async def handler(_peer: Peer, _query: Query) -> QueryReply:
        await go_on.wait()
        return QueryReply(states=[])

    settings = ChannelSettings(dial=QUICK.dial, pending=3)
    channel = await a_pair(house, handler, calling=settings)
    calls = [asyncio.create_task(channel.call(PEER_QUERY, Query(batches=[]), deadline=10)) for _ in range(3)]
    await asyncio.sleep(0)
    assert (await refusal(channel)).code == ErrorCode.BUSY
    go_on.set()
    await asyncio.gather(*calls)


async def test_calls_beyond_the_servers_streams_wait_their_turn(house: House) -> None:
    most = 0
    running = 0

    async def handler(_peer: Peer, _query: Query) -> QueryReply:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return QueryReply(states=[])

    few = ListenerSettings(served=WireSettings(keepalive=SERVED, limits=Limits(streams=4)))
    channel = await a_pair(house, handler, listening=few)
    await asyncio.gather(*(channel.call(PEER_QUERY, Query(batches=[]), deadline=10) for _ in range(50)))
    assert most <= 4


async def test_nobody_there_is_unreachable_at_once(house: House) -> None:
    settings = ChannelSettings(dial=DialSettings(first_delay=30, longest_delay=30))
    channel = Channel(A, B, "127.0.0.1:1", service_client(house.pki.identity(A)), settings=settings)
    await channel.start()
    assert (await refusal(channel, deadline=30)).code == ErrorCode.UNREACHABLE
    assert (await refusal(channel, deadline=30)).code == ErrorCode.UNREACHABLE
    assert not channel.connected
    await channel.close()
    assert (await refusal(channel, deadline=30)).code == ErrorCode.UNREACHABLE


async def test_a_restarted_server_is_dialled_again(house: House) -> None:
    listener = await house.listener(B, querying())
    channel = await house.channel(A, B, listener.address)
    await channel.call(PEER_QUERY, Query(batches=[]), deadline=5)
    address = listener.address
    await listener.close()
    await house.until(lambda: not channel.connected)
    assert (await refusal(channel)).code == ErrorCode.UNREACHABLE
    await house.listener(B, querying(), address=address)
    await house.until(lambda: channel.connected)
    await channel.call(PEER_QUERY, Query(batches=[]), deadline=5)


async def test_a_lost_connection_is_told_to_whoever_waits_for_that(house: House) -> None:
    listener = await house.listener(B, querying())
    address = listener.address
    channel = await house.channel(A, B, address)
    await channel.call(PEER_QUERY, Query(batches=[]), deadline=5)
    lost = asyncio.create_task(channel.lost())
    await channel.call(PEER_QUERY, Query(batches=[]), deadline=5)
    assert not lost.done()
    await listener.close()
    await asyncio.wait_for(lost, 5)
    await asyncio.wait_for(channel.lost(), 5)  # where none stands there is nothing to wait for
    await house.listener(B, querying(), address=address)
    await house.until(lambda: channel.connected)
    again = asyncio.create_task(channel.lost())
    former = channel.redial()
    await asyncio.wait_for(again, 5)
    await former


async def test_a_closing_listener_lets_handlers_finish_and_their_answers_out(house: House) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def handler(_peer: Peer, _query: Query) -> QueryReply:
        started.set()
        await go_on.wait()
        return QueryReply(states=[])

    listener = await house.listener(B, querying(handler))
    channel = await house.channel(A, B, listener.address)
    call = asyncio.create_task(channel.call(PEER_QUERY, Query(batches=[]), deadline=10))
    await started.wait()
    closing = asyncio.create_task(listener.close())
    await house.until(lambda: not channel.connected)
    assert not call.done()
    go_on.set()
    await call
    await closing


async def test_a_handler_that_never_ends_does_not_keep_a_listener_open(house: House) -> None:
    started = asyncio.Event()

    async def handler(_peer: Peer, _query: Query) -> QueryReply:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    listener = await house.listener(B, querying(handler), settings=ListenerSettings(farewell=0.05))
    channel = await house.channel(A, B, listener.address)
    call = asyncio.create_task(refusal(channel, deadline=10))
    await started.wait()
    async with asyncio.timeout(5):
        await listener.close()
    assert (await call).code == ErrorCode.UNREACHABLE


async def test_calls_move_to_a_new_connection_when_the_peer_says_goaway(house: House) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def handler(_peer: Peer, query: Query) -> QueryReply:
        if query.batches:
            started.set()
            await go_on.wait()
        return QueryReply(states=[])

    listener = await house.listener(B, querying(handler))
    channel = await house.channel(A, B, listener.address)
    slow = asyncio.create_task(channel.call(PEER_QUERY, Query(batches=["slow"]), deadline=10))
    await started.wait()
    [[wire]] = listener._wires.values()
    wire.drain()
    later = [channel.call(PEER_QUERY, Query(batches=[]), deadline=10) for _ in range(20)]
    await asyncio.gather(*later)
    assert not slow.done()
    assert len(next(iter(listener._wires.values()))) == 2
    go_on.set()
    await slow
    await house.until(lambda: len(next(iter(listener._wires.values()))) == 1)


class Frozen(asyncio.Protocol):
    """A server that shakes hands and then reads nothing any more."""

    made: ClassVar[list[asyncio.BaseTransport]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server = H2Connection(H2Configuration(client_side=False))
        server.initiate_connection()
        transport.write(server.data_to_send())  # type: ignore[attr-defined]
        transport.pause_reading()  # type: ignore[attr-defined]
        self.made.append(transport)


@contextlib.asynccontextmanager
async def frozen_server(house: House) -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(
        Frozen, "127.0.0.1", 0, ssl=service_server(house.pki.identity(B))
    )
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
        while Frozen.made:
            Frozen.made.pop().abort()  # type: ignore[attr-defined]
        await asyncio.sleep(0)


async def test_a_frozen_peer_is_found_while_a_call_waits(house: House) -> None:
    times = KeepaliveTimes(ping_waiting=0.02, dead_waiting=0.1, ping_idle=20, dead_idle=50)
    settings = ChannelSettings(wire=WireSettings(keepalive=times), dial=QUICK.dial)
    async with frozen_server(house) as address:
        channel = await house.channel(A, B, address, settings=settings)
        async with asyncio.timeout(2):
            assert (await refusal(channel, deadline=30)).code == ErrorCode.UNREACHABLE


ONE_CONNECTION = DialSettings(first_delay=30, settled=60)
"""It is not dialled again in time."""

EAGER = KeepaliveTimes(ping_waiting=0.02, dead_waiting=0.1, ping_idle=20, dead_idle=50)


async def test_a_peer_that_owes_a_message_and_no_answer_is_watched_as_if_a_call_waited(house: House) -> None:
    settings = ChannelSettings(wire=WireSettings(keepalive=EAGER), dial=ONE_CONNECTION)
    listener = await house.listener(B, querying())
    channel = await house.channel(A, B, listener.address, settings=settings)
    await channel.call(PEER_QUERY, Query(batches=[]), deadline=5)
    caller = channel._standing()
    assert caller is not None
    pings, ping = [], caller._http2.ping

    def counted() -> None:
        pings.append(asyncio.get_running_loop().time())
        ping()

    caller._http2.ping = counted  # type: ignore[method-assign]
    with contextlib.ExitStack() as waits:
        for _ in range(300):
            waits.enter_context(channel.expecting())
        await house.until(lambda: len(pings) >= 5)
    intervals = [later - earlier for earlier, later in itertools.pairwise(pings)]
    assert min(intervals) >= 0.02
    await house.until(lambda: caller._keepalive.due > asyncio.get_running_loop().time() + 10)
    assert channel.connected

    [[wire]] = listener._wires.values()
    with channel.expecting():
        wire._transport.pause_reading()  # type: ignore[union-attr]
        await house.until(lambda: not channel.connected)
    assert caller.silent


async def test_the_round_trip_is_that_of_the_fastest_ping(house: House) -> None:
    settings = ChannelSettings(wire=WireSettings(keepalive=EAGER), dial=ONE_CONNECTION)
    listener = await house.listener(B, querying())
    channel = await house.channel(A, B, listener.address, settings=settings)
    before = channel.round_trip
    assert before is None
    await channel.call(PEER_QUERY, Query(batches=[]), deadline=5)
    with channel.expecting():
        await house.until(lambda: channel.round_trip is not None)
        first = channel.round_trip
        assert first is not None
        assert 0 < first < 0.1
        caller = channel._standing()
        assert caller is not None
        await house.until(lambda: len(caller._round_trips) == 8)
        assert channel.round_trip == min(caller._round_trips) <= first
    await channel.close()
    after = channel.round_trip
    assert after is None


async def test_a_message_may_be_owed_from_before_the_connection(house: House) -> None:
    settings = ChannelSettings(wire=WireSettings(keepalive=EAGER), dial=ONE_CONNECTION)
    async with frozen_server(house) as address:
        channel = await house.channel(A, B, address, settings=settings)
        with channel.expecting():
            await house.until(lambda: channel.connected)
            await house.until(lambda: not channel.connected)


async def test_a_frozen_peer_is_found_while_nothing_waits(house: House) -> None:
    times = KeepaliveTimes(ping_waiting=20, dead_waiting=50, ping_idle=0.02, dead_idle=0.1)
    settings = ChannelSettings(wire=WireSettings(keepalive=times), dial=DialSettings(first_delay=30, settled=60))
    async with frozen_server(house) as address:
        channel = await house.channel(A, B, address, settings=settings)
        await house.until(lambda: channel.connected)
        await house.until(lambda: not channel.connected)


async def test_a_slow_handler_is_not_taken_for_a_frozen_peer(house: House) -> None:
    async def handler(_peer: Peer, _query: Query) -> QueryReply:
        await asyncio.sleep(0.4)
        return QueryReply(states=[])

    times = KeepaliveTimes(ping_waiting=0.03, dead_waiting=0.15, ping_idle=20, dead_idle=50)
    settings = ChannelSettings(wire=WireSettings(keepalive=times), dial=QUICK.dial)
    channel = await a_pair(house, handler, calling=settings)
    await channel.call(PEER_QUERY, Query(batches=[]), deadline=10)


async def test_calls_move_on_before_stream_identifiers_run_out(house: House) -> None:
    channel = await a_pair(house)
    await channel.call(PEER_QUERY, Query(batches=[]), deadline=5)
    first = channel._standing()
    assert first is not None
    first._http2._h2.highest_outbound_stream_id = 2**31 - 1 - 2**16 - 2
    for _ in range(5):
        await channel.call(PEER_QUERY, Query(batches=[]), deadline=5)
    assert channel._standing() is not first
    await house.until(first.gone.is_set)


async def test_after_a_peer_fell_silent_calls_do_not_wait_for_it(house: House) -> None:
    times = KeepaliveTimes(ping_waiting=0.02, dead_waiting=0.1, ping_idle=20, dead_idle=50)
    settings = ChannelSettings(wire=WireSettings(keepalive=times), dial=DialSettings(first_delay=30, settled=60))
    async with frozen_server(house) as address:
        channel = await house.channel(A, B, address, settings=settings)
        await refusal(channel, deadline=30)
        before = asyncio.get_running_loop().time()
        assert (await refusal(channel, deadline=30)).code == ErrorCode.UNREACHABLE
        assert asyncio.get_running_loop().time() - before < 0.5
