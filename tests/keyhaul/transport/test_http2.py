"""HTTP/2 as bytes and events: messages of any size, and peers that break or abuse the protocol."""

from __future__ import annotations

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhaul.transport.http2 import Http2, TooManyRequests
from keyhaul.transport.http2_events import (
    AnswerArrived,
    ConnectionFailed,
    Event,
    PeerLeaves,
    PeerReady,
    RequestArrived,
    RequestTooLarge,
    StreamFailed,
)
from keyhaul.transport.limits import MIB, Budget, Limits

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS = [(":method", "POST"), (":scheme", "https"), (":authority", "x"), (":path", "/v1/x")]


class Pair:
    """A client and a server with a perfect wire between them."""

    def __init__(self, *, limits: Limits | None = None, client_limits: Limits | None = None) -> None:
        self.budget = Budget()
        self.client = Http2(client=True, limits=client_limits or Limits(), budget=self.budget)
        self.server = Http2(client=False, limits=limits or Limits(), budget=self.budget)
        self.client.begin()
        self.server.begin()
        self.shuttle()

    def shuttle(self, now: float = 0.0) -> list[Event]:
        found: list[Event] = []
        while True:
            up, down = self.client.take(), self.server.take()
            if not up and not down:
                return found
            found += self.server.receive(up, now)
            found += self.client.receive(down, now)


def a_server(limits: Limits | None = None) -> tuple[Http2, H2Connection]:
    """Our server, and h2's client that has shaken hands with it."""
    server = Http2(client=False, limits=limits or Limits(), budget=Budget())
    server.begin()
    peer = H2Connection(H2Configuration(client_side=True))
    peer.initiate_connection()
    assert server.receive(peer.data_to_send(), 0.0) == [PeerReady()]
    peer.receive_data(server.take())
    server.receive(peer.data_to_send(), 0.0)
    return server, peer


def farewell_code(connection: Http2, peer: H2Connection) -> int:
    """The code of the GOAWAY that our end sent."""
    for event in peer.receive_data(connection.take()):
        if type(event).__name__ == "ConnectionTerminated":
            return int(event.error_code)  # type: ignore[attr-defined]
    raise AssertionError("no GOAWAY")


def test_a_request_is_answered() -> None:
    pair = Pair()
    stream = pair.client.request("/v1/x", [(b"keyhaul-deadline-ms", b"50")], b"question")
    [request] = pair.shuttle()
    assert isinstance(request, RequestArrived)
    assert (request.method, request.path, request.body) == (b"POST", b"/v1/x", b"question")
    assert request.headers[b"keyhaul-deadline-ms"] == b"50"
    pair.server.respond(request.stream, 200, b"answer")
    assert pair.shuttle() == [AnswerArrived(stream, 200, b"answer")]
    assert not pair.client.under_way
    assert not pair.server.under_way


def test_empty_bodies_travel() -> None:
    pair = Pair()
    stream = pair.client.request("/v1/x", [], b"")
    [request] = pair.shuttle()
    assert isinstance(request, RequestArrived)
    pair.server.respond(request.stream, 204, b"")
    assert pair.shuttle() == [AnswerArrived(stream, 204, b"")]


def test_headers_and_data_leave_in_one_piece_without_window_updates() -> None:
    pair = Pair()
    pair.client.request("/v1/x", [], b"b" * 600)
    written = pair.client.take()
    assert pair.client.take() == b""
    first, length = Frame.parse_frame_header(memoryview(written[:9]))
    second, rest = Frame.parse_frame_header(memoryview(written[9 + length : 18 + length]))
    assert isinstance(first, HeadersFrame)
    assert isinstance(second, DataFrame)
    assert 18 + length + rest == len(written)
    pair.server.receive(written, 0.0)
    assert pair.server.take() == b""


def test_sixteen_mebibytes_travel_both_ways_and_the_next_ones_too() -> None:
    pair = Pair()
    body = bytes(range(256)) * (16 * MIB // 256)
    for _ in range(5):
        stream = pair.client.request("/v1/x", [], body)
        [request] = pair.shuttle()
        assert isinstance(request, RequestArrived)
        assert request.body == body
        pair.server.respond(request.stream, 200, body)
        assert pair.shuttle() == [AnswerArrived(stream, 200, body)]
    assert pair.budget.used == 0


def test_small_messages_pass_large_ones() -> None:
    pair = Pair()
    large = pair.client.request("/v1/large", [], b"x" * (8 * MIB))
    first = pair.client.take()
    small = pair.client.request("/v1/small", [], b"y")
    arrived = pair.server.receive(first + pair.client.take(), 0.0)
    assert [event.stream for event in arrived if isinstance(event, RequestArrived)] == [small]
    assert [event.stream for event in pair.shuttle() if isinstance(event, RequestArrived)] == [large]


def test_a_body_above_the_limit_is_answered_and_dropped() -> None:
    pair = Pair(limits=Limits(body=1_000))
    pair.client.request("/v1/x", [], b"x" * 1_001)
    [event] = pair.shuttle()
    assert isinstance(event, RequestTooLarge)
    pair.server.respond(event.stream, 400, b"{}")
    assert [type(event) for event in pair.shuttle()] == [AnswerArrived]
    assert pair.budget.used == 0


def test_bodies_beyond_the_shared_budget_are_refused() -> None:
    pair = Pair()
    pair.budget.limit = 100_000
    pair.client.request("/v1/x", [], b"x" * 200_000)
    [failed] = pair.shuttle()
    assert isinstance(failed, StreamFailed)
    assert failed.code == ErrorCodes.REFUSED_STREAM
    assert pair.budget.used == 0


def test_a_client_sends_no_more_at_once_than_the_server_takes() -> None:
    pair = Pair(limits=Limits(streams=2))
    pair.client.request("/v1/x", [], b"1")
    pair.client.request("/v1/x", [], b"2")
    assert pair.client.room == 0
    with pytest.raises(TooManyRequests):
        pair.client.request("/v1/x", [], b"3")
    for event in pair.shuttle():
        assert isinstance(event, RequestArrived)
        pair.server.respond(event.stream, 200, b"")
    pair.shuttle()
    assert pair.client.room == 2


def test_more_streams_than_allowed_end_the_connection() -> None:
    server, peer = a_server(Limits(streams=2))
    peer.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 100
    peer.remote_settings.acknowledge()
    for stream in (1, 3, 5):
        peer.send_headers(stream, HEADERS)
    assert server.receive(peer.data_to_send(), 0.0)[-1] == ConnectionFailed("protocol")
    assert farewell_code(server, peer) == ErrorCodes.PROTOCOL_ERROR


def test_a_given_up_request_is_told_to_the_server() -> None:
    pair = Pair()
    stream = pair.client.request("/v1/x", [], b"1")
    pair.shuttle()
    pair.client.reset(stream)
    [failed] = pair.shuttle()
    assert isinstance(failed, StreamFailed)
    assert failed.stream == stream
    pair.server.respond(stream, 200, b"late")
    assert pair.shuttle() == []


def test_goaway_lets_running_requests_finish_and_refuses_later_ones() -> None:
    pair = Pair()
    before = pair.client.request("/v1/x", [], b"before")
    [request] = pair.shuttle()
    assert isinstance(request, RequestArrived)
    pair.server.stop_intake()
    after = pair.client.request("/v1/x", [], b"after")
    events = pair.shuttle()
    assert StreamFailed(after, True, 0) in events
    assert PeerLeaves(0) in events
    assert not any(isinstance(event, RequestArrived) for event in events)
    assert pair.client.room == 0
    pair.server.respond(request.stream, 200, b"done")
    assert pair.shuttle() == [AnswerArrived(before, 200, b"done")]


@pytest.mark.parametrize(
    ("flood", "kind"),
    [
        (PingFrame(0, opaque_data=b"12345678").serialize(), "pings"),
        (SettingsFrame(0, settings={SettingCodes.INITIAL_WINDOW_SIZE: 70_000}).serialize(), "settings"),
        (SettingsFrame(0).serialize(), "settings"),
        (WindowUpdateFrame(0, window_increment=1).serialize(), "controls"),
        (b"\0\0\1\xfa\0\0\0\0\0?", "controls"),
        (RstStreamFrame(1).serialize(), "resets"),
    ],
)
def test_floods_end_the_connection_with_enhance_your_calm(flood: bytes, kind: str) -> None:
    server, peer = a_server()
    peer.send_headers(1, HEADERS, end_stream=True)
    server.receive(peer.data_to_send(), 0.0)
    server.respond(1, 200, b"")
    peer.receive_data(server.take())
    events: list[Event] = []
    for _ in range(30_000):
        events = server.receive(flood, 1.0)
        server.take()
        if events:
            break
    assert events == [ConnectionFailed(kind)]
    assert server.closed


def test_the_last_word_to_a_flooding_peer_is_enhance_your_calm() -> None:
    server, peer = a_server(Limits(pings=Limits().settings))
    for _ in range(60):
        peer.ping(b"12345678")
    assert server.receive(peer.data_to_send(), 0.0)[-1] == ConnectionFailed("pings")
    assert farewell_code(server, peer) == ErrorCodes.ENHANCE_YOUR_CALM


def test_slow_pings_are_no_flood() -> None:
    server, peer = a_server()
    for second in range(300):
        peer.ping(b"12345678")
        assert server.receive(peer.data_to_send(), float(second)) == []
        peer.receive_data(server.take())


def test_rapid_reset_ends_the_connection() -> None:
    server, peer = a_server()
    events: list[Event] = []
    for stream in range(1, 2_001, 2):
        peer.send_headers(stream, HEADERS, end_stream=True)
        peer.reset_stream(stream)
        events = server.receive(peer.data_to_send(), 0.0)
        if isinstance(events[-1], ConnectionFailed):
            break
    assert events[-1] == ConnectionFailed("resets")
    assert farewell_code(server, peer) == ErrorCodes.ENHANCE_YOUR_CALM


def test_errors_that_make_us_reset_streams_count_as_resets() -> None:
    server, peer = a_server()
    bad = WindowUpdateFrame(0, window_increment=2**31 - 1)
    failed = False
    for stream in range(1, 2_001, 2):
        peer.send_headers(stream, HEADERS, end_stream=True)
        bad.stream_id = stream
        events = server.receive(peer.data_to_send() + bad.serialize(), 0.0)
        server.take()
        if any(isinstance(event, ConnectionFailed) for event in events):
            failed = True
            break
    assert failed


def test_a_body_in_many_tiny_frames_ends_the_connection() -> None:
    server, peer = a_server()
    peer.send_headers(1, HEADERS)
    server.receive(peer.data_to_send(), 0.0)
    tiny = DataFrame(1, data=b"x").serialize() * 3_000
    assert server.receive(tiny, 0.0)[-1] == ConnectionFailed("fragments")


@pytest.mark.parametrize("size", [16_385, 60_000])
def test_an_oversized_header_block_ends_the_connection(size: int) -> None:
    server, _peer = a_server()
    frame = HeadersFrame(1, data=b"\0" * size, flags=["END_HEADERS"])
    assert server.receive(frame.serialize(), 0.0)[-1] == ConnectionFailed("headers")


def test_headers_that_grow_large_when_decompressed_end_the_connection() -> None:
    server, peer = a_server()
    peer.send_headers(1, [*HEADERS, ("big", "x" * 3_000)], end_stream=True)
    server.receive(peer.data_to_send(), 0.0)
    peer.send_headers(3, [*HEADERS, *[("big", "x" * 3_000)] * 60], end_stream=True)
    data = peer.data_to_send()
    assert len(data) < 1_000
    assert isinstance(server.receive(data, 0.0)[-1], ConnectionFailed)


def test_too_many_header_fields_reset_the_stream() -> None:
    server, peer = a_server()
    peer.send_headers(1, [*HEADERS, *[(f"f{number}", "x") for number in range(70)]], end_stream=True)
    assert server.receive(peer.data_to_send(), 0.0) == []
    assert any(type(event).__name__ == "StreamReset" for event in peer.receive_data(server.take()))


def test_a_continuation_flood_ends_the_connection() -> None:
    server, _peer = a_server()
    data = HeadersFrame(1, data=b"\0" * 100).serialize()
    data += b"".join(ContinuationFrame(1, data=b"\0" * 4_096).serialize() for _ in range(5))
    assert server.receive(data, 0.0)[-1] == ConnectionFailed("headers")


def test_a_header_block_that_never_ends_is_given_up() -> None:
    server, _peer = a_server()
    server.receive(HeadersFrame(1, data=b"\x82").serialize(), 10.0)
    assert server.expire(9.0) == []
    assert server.expire(11.0) == [ConnectionFailed("headers")]


def test_a_body_that_never_ends_is_given_up() -> None:
    server, peer = a_server()
    peer.send_headers(1, HEADERS)
    peer.send_data(1, b"x" * 1_000)
    server.receive(peer.data_to_send(), 10.0)
    assert [server.receiving, server.expire(11.0), server.receiving] == [True, [], False]
    assert any(type(event).__name__ == "StreamReset" for event in peer.receive_data(server.take()))


def test_a_frame_longer_than_allowed_is_refused_before_it_is_whole() -> None:
    server, _peer = a_server()
    header = DataFrame(1, data=b"").serialize()
    announced = (16_000_000).to_bytes(3, "big") + header[3:]
    events = server.receive(announced + b"x" * 70_000, 0.0)
    assert events == [ConnectionFailed("frame-size")]


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nXX"])
def test_what_is_not_http2_ends_the_connection(start: bytes) -> None:
    server = Http2(client=False, limits=Limits(), budget=Budget())
    server.begin()
    assert isinstance(server.receive(start, 0.0)[-1], ConnectionFailed)
    assert server.receive(b"more", 0.0) == []


def test_a_pushing_server_is_refused() -> None:
    client = Http2(client=True, limits=Limits(), budget=Budget())
    client.begin()
    server = H2Connection(H2Configuration(client_side=False))
    server.initiate_connection()
    server.receive_data(client.take())
    client.receive(server.data_to_send(), 0.0)
    stream = client.request("/v1/x", [], b"")
    server.receive_data(client.take())
    server.remote_settings[SettingCodes.ENABLE_PUSH] = 1
    server.remote_settings.acknowledge()
    server.push_stream(stream, 2, HEADERS)
    assert client.receive(server.data_to_send(), 0.0) == [ConnectionFailed("protocol")]


@given(st.binary(max_size=300))
def test_random_bytes_from_the_start_never_raise(data: bytes) -> None:
    for client in (True, False):
        connection = Http2(client=client, limits=Limits(), budget=Budget())
        connection.begin()
        connection.receive(data, 0.0)
        connection.take()


frames = st.builds(
    lambda kind, flags, stream, body: (
        len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
    ),
    st.integers(0, 12) | st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 9) | st.integers(0, 2**32 - 1),
    st.binary(max_size=60),
)


@settings(max_examples=300)
@given(st.lists(frames, max_size=8), st.booleans(), st.integers(1, 40))
def test_random_frames_never_raise(sequence: list[bytes], client: bool, step: int) -> None:
    budget = Budget()
    connection = Http2(client=client, limits=Limits(), budget=budget)
    connection.begin()
    data = b"" if client else PREFACE
    data += SettingsFrame(0).serialize()
    connection.receive(data, 0.0)
    if client:
        connection.request("/v1/x", [], b"x" * 70_000)
    else:
        peer = H2Connection(H2Configuration(client_side=True))
        peer.send_headers(1, HEADERS)
        connection.receive(peer.data_to_send(), 0.0)
    noise = b"".join(sequence)
    for start in range(0, len(noise), step):
        connection.receive(noise[start : start + step], 0.0)
        connection.take()
    for event in connection.expire(1.0):
        assert isinstance(event, StreamFailed | ConnectionFailed)
    connection.close()
    connection.take()
    assert budget.used == 0


def test_goaway_frames_do_not_cut_what_is_under_way() -> None:
    client = Http2(client=True, limits=Limits(), budget=Budget())
    client.begin()
    client.receive(SettingsFrame(0).serialize(), 0.0)
    first = client.request("/v1/x", [], b"")
    events = client.receive(GoAwayFrame(0, last_stream_id=first).serialize(), 0.0)
    assert events == [PeerLeaves(0)]
    assert client.under_way == 1


def test_a_connection_is_left_before_its_stream_identifiers_are_used_up() -> None:
    pair = Pair()
    pair.client._h2.highest_outbound_stream_id = 2**31 - 1 - 2**16 - 4
    pair.client.request("/v1/x", [], b"1")
    assert pair.client.room > 0
    pair.client.request("/v1/x", [], b"2")
    assert pair.client.leaving
    assert pair.client.room == 0
    assert len([event for event in pair.shuttle() if isinstance(event, RequestArrived)]) == 2


def test_what_is_remembered_of_past_streams_is_bounded() -> None:
    pair = Pair()
    for _ in range(1_500):
        pair.client.request("/v1/x", [], b"")
        [request] = pair.shuttle()
        assert isinstance(request, RequestArrived)
        pair.server.respond(request.stream, 200, b"")
        pair.shuttle()
    for end in (pair.client, pair.server):
        assert len(end._h2._closed_streams) <= 1_024
        assert len(end._h2.streams) < 10
