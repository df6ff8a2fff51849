from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from keyhaul.identity.names import ServiceName
from keyhaul.link.protection.registry import UnknownSuite
from keyhaul.link.refill import HUNGRY
from keyhaul.runtime.interface import StartError
from keyhaul.store.interface import StoreUnavailable
from keyhaul.transport.messages.base import Accepted, ErrorCode, ServiceError
from keyhaul.transport.messages.link import Sealed, SealedHeader, SignedHello, Stream
from keyhaul.transport.messages.relay import Forward
from keyhaul.transport.operations import (
    ACCESS_REQUEST,
    LINK_CONTROL,
    LINK_ESTABLISH,
    LINK_HELLO,
    LINK_WAKE,
    RELAY_FORWARD,
    Operation,
)
from tests.keyhaul.link.pair import ECHO, QUICK, Maker, Node, forward, make_pair, restart, serve, service, until


@pytest.fixture(params=["otp", "aes-256-gcm"])
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_cold_link_carries_a_secret_both_ways(pair: Maker, suite: str) -> None:
    ends = await pair({"suites": [suite]})
    secret = bytes(range(256)) * 2
    reply, back = await ends.a.link.call(ECHO, forward(), secret, deadline=5)
    assert (reply.label, back) == (forward().label, secret[::-1])
    reply, back = await ends.b.link.call(ECHO, forward(), secret, deadline=5)
    assert back == secret[::-1]
    assert ends.a.link.status().suite == ends.b.link.status().suite == suite
    assert ends.a.link.up
    assert ends.b.link.up


async def test_one_way_messages_arrive_and_need_no_answer(pair: Maker, suite: str) -> None:
    ends = await pair({"suites": [suite]})
    for number in range(20):
        await ends.a.link.send(RELAY_FORWARD, forward(), bytes([number]) * 100, deadline=5)
    assert ends.b.received == [(forward().label, bytes([number]) * 100) for number in range(20)]


async def test_many_concurrent_calls_never_share_pad(pair: Maker, suite: str) -> None:
    ends = await pair({"suites": [suite], "pool": 65_536})
    secrets = [bytes([number]) * 64 for number in range(150)]
    answers = await asyncio.gather(
        *(ends.a.link.call(ECHO, forward(), secret, deadline=10) for secret in secrets),
        *(ends.b.link.call(ECHO, forward(), secret, deadline=10) for secret in secrets),
    )
    assert [back for _, back in answers] == [secret[::-1] for secret in secrets] * 2
    for wire in (ends.a.wire, ends.b.wire):
        heads = [
            msgspec.json.decode(msgspec.json.decode(body, type=Sealed).header, type=SealedHeader)
            for path, body in wire.posted
            if path in (ECHO.path, LINK_CONTROL.path)
        ]
        assert len({(head.session, head.sequence) for head in heads}) == len(heads)


async def test_the_pads_fill_to_what_is_configured(pair: Maker) -> None:
    ends = await pair()
    for node in (ends.a, ends.b):
        await until(lambda node=node: node.link.status().outgoing.payload_available > 8192 - 640)
        status = node.link.status()
        assert status.outgoing.control_available > 700
        assert status.state == "up"
    await until(lambda: ends.a.link.status().incoming.payload_available > 8192 - 640)


async def test_the_same_module_keys_reach_both_ends_despite_missing_ones(pair: Maker) -> None:
    ends = make_missing = await pair()
    ends.modules.lose_every = 7
    for _ in range(30):
        _, back = await make_missing.a.link.call(ECHO, forward(), b"k" * 300, deadline=5)
        assert back == b"k" * 300
    assert _metric(ends.a, "keyhaul_link_missing_keys_total") > 0


async def test_modules_that_disagree_are_noticed_and_never_used(pair: Maker, tmp_path: Path) -> None:
    ends = make_pair(tmp_path)
    ends.modules.spoil = True
    await ends.start()
    serve(ends.a)
    serve(ends.b)
    try:
        await until(lambda: "link-block-mismatch" in ends.a.runtime.alarms)
        with pytest.raises(ServiceError) as refused:
            await ends.a.link.call(ECHO, forward(), b"secret", deadline=0.05)
        assert refused.value.code is ErrorCode.EXHAUSTED
        ends.modules.spoil = False
        _, back = await ends.a.link.call(ECHO, forward(), b"secret", deadline=5)
        assert back == b"terces"
    finally:
        await ends.stop()


async def test_without_keys_a_message_waits_and_then_fails_as_exhausted(pair: Maker, suite: str) -> None:
    ends = await pair({"suites": [suite]})
    ends.modules.stock = 0
    await until(lambda: ends.a.link.up)
    ends.a.module.pair.away = True
    big = b"x" * 9000 if suite == "otp" else b"x"
    if suite == "aes-256-gcm":
        ends.a.link._core.outgoing.streams[Stream.PAYLOAD].burn_below(1 << 40)
    with pytest.raises(ServiceError) as refused:
        await ends.a.link.call(ECHO, forward(), big, deadline=0.1)
    assert refused.value.code is ErrorCode.EXHAUSTED
    assert ends.a.link.status().suite == suite


async def test_without_a_neighbour_a_message_fails_as_unreachable(pair: Maker) -> None:
    ends = await pair()
    ends.a.wire.connected = ends.b.wire.connected = False
    with pytest.raises(ServiceError) as refused:
        await ends.a.link.call(ECHO, forward(), b"x", deadline=0.05)
    assert refused.value.code is ErrorCode.UNREACHABLE


async def test_either_end_may_crash_and_the_next_call_succeeds(pair: Maker, suite: str) -> None:
    ends = await pair({"suites": [suite]})
    await ends.a.link.call(ECHO, forward(), b"one", deadline=5)
    await restart(ends.b)
    _, back = await ends.a.link.call(ECHO, forward(), b"two", deadline=5)
    assert back == b"owt"
    await restart(ends.a)
    _, back = await ends.b.link.call(ECHO, forward(), b"three", deadline=5)
    assert back == b"eerht"
    await restart(ends.b)
    _, back = await ends.b.link.call(ECHO, forward(), b"four", deadline=5)
    assert back == b"ruof"


async def test_a_process_of_the_neighbour_has_one_name_in_all_its_sessions_and_another_has_another(pair: Maker) -> None:
    ends = await pair()
    assert (await ends.a.link.call(ECHO, forward(), b"s", deadline=5))[1] == b"s"
    first = ends.a.link.process
    assert first
    sessions = ends.b.sessions
    await ends.a.links.protect("8-9", ["aes-256-gcm"])
    await until(lambda: ends.b.sessions > sessions and ends.a.link.process)
    assert ends.a.link.process == first
    await ends.b.crash()
    await restart(ends.a)
    assert not ends.a.link.process, "nobody knows whom a message would reach"
    await ends.b.start()
    serve(ends.b)
    await ends.a.link.call(ECHO, forward(), b"s", deadline=5)
    assert ends.a.link.process not in (b"", first)


async def test_a_restored_sender_burns_its_lane_and_says_so(pair: Maker) -> None:
    ends = await pair()
    await ends.a.link.call(ECHO, forward(), b"x" * 400, deadline=5)
    await until(lambda: ends.a.link.status().outgoing.payload_available > 4000)
    old = ends.a.store.snapshot()
    for _ in range(10):
        await ends.a.link.call(ECHO, forward(), b"x" * 400, deadline=5)
    await ends.a.crash()
    ends.a.store = type(ends.a.store)(old)
    await ends.a.start()
    serve(ends.a)
    _, back = await ends.a.link.call(ECHO, forward(), b"afresh", deadline=5)
    assert back == b"hserfa"
    assert "link-store-restored" in ends.a.runtime.alarms
    assert "link-store-restored" in ends.b.runtime.alarms
    assert ends.a.link.status().outgoing.burned_total > 3000


@pytest.mark.parametrize(("node", "failures"), [("a", 0), ("b", 0), ("b", 2)])
async def test_who_has_a_restored_store_deals_with_it_before_the_link_forgets_it(
    pair: Maker, node: str, failures: int
) -> None:
    """Where that fails the session fails, and the next one finds the same; the other end hears nothing of it."""
    ends = await pair()
    old = {each: getattr(ends, each).store.snapshot() for each in "ab"}
    for _ in range(10):
        await ends.a.link.call(ECHO, forward(), b"x" * 400, deadline=5)
        await ends.b.link.call(ECHO, forward(), b"x" * 400, deadline=5)
    restored, other = (ends.a, ends.b) if node == "a" else (ends.b, ends.a)
    await restored.crash()
    restored.store = type(restored.store)(old[node])
    calls: list[tuple[str, bytes]] = []

    def note(who: Node) -> Callable[[], Awaitable[None]]:
        async def older() -> None:
            calls.append((who.node, who.store.snapshot()))
            if len(calls) <= failures:
                raise StoreUnavailable("the disk is full")

        return older

    other.links.on_store_older("8-9", note(other))
    restored.on_store_older = note(restored)
    await restored.start()
    serve(restored)
    _, back = await ends.a.link.call(ECHO, forward(), b"afresh", deadline=5)
    assert back == b"hserfa"
    assert {who for who, _ in calls} == {restored.node}
    assert len(calls) == failures + 1
    assert {state for _, state in calls} == {calls[0][1]}


async def test_a_link_without_such_a_name_has_no_store_to_watch(pair: Maker) -> None:
    ends = await pair()

    async def older() -> None:
        return

    with pytest.raises(KeyError):
        ends.a.links.on_store_older("no such link", older)


async def test_a_destroyed_store_starts_over(pair: Maker) -> None:
    ends = await pair()
    await ends.a.link.call(ECHO, forward(), b"x" * 400, deadline=5)
    for node in (ends.b, ends.a):
        await node.crash()
        node.store = type(node.store)()
        await node.start()
        serve(node)
        _, back = await ends.a.link.call(ECHO, forward(), b"afresh", deadline=5)
        assert back == b"hserfa"


async def test_a_lost_connection_alone_needs_no_new_session(pair: Maker) -> None:
    ends = await pair()
    await ends.a.link.call(ECHO, forward(), b"one", deadline=5)
    sessions = ends.a.link.status().sessions_total
    for node in (ends.a, ends.b):
        node.wire.connected, looks = False, node.wire.looks
        node.link._core.stir.set()
        await until(lambda node=node, looks=looks: node.wire.looks > looks)
    ends.a.wire.connected = ends.b.wire.connected = True
    _, back = await ends.a.link.call(ECHO, forward(), b"two", deadline=5)
    assert back == b"owt"
    assert ends.a.link.status().sessions_total == sessions
    assert ends.a.link.status().outgoing.burned_total == 0


async def test_the_suite_changes_at_run_time_and_no_message_is_lost(pair: Maker) -> None:
    ends = await pair()
    assert (await ends.a.link.call(ECHO, forward(), b"s", deadline=5))[1] == b"s"
    assert ends.a.link.status().suite == "otp"
    stop = False

    async def traffic(node: Node) -> int:
        sent = 0
        while not stop:
            sent += 1
            _, back = await node.link.call(ECHO, forward(), sent.to_bytes(4), deadline=5)
            assert back[::-1] == sent.to_bytes(4)
        return sent

    flows = [asyncio.ensure_future(traffic(node)) for node in (ends.a, ends.b)]
    for node, suites, expected in (
        (ends.a, ["aes-256-gcm"], "aes-256-gcm"),
        (ends.a, ["otp", "aes-256-gcm"], "otp"),
        (ends.b, ["aes-256-gcm"], "aes-256-gcm"),
    ):
        sessions = ends.b.sessions
        await node.links.protect("8-9", suites)
        await until(lambda sessions=sessions: ends.b.sessions > sessions)
        await until(lambda expected=expected: ends.a.link.status().suite == expected)
        for end in (ends.a, ends.b):
            before = len(end.received)
            await until(lambda end=end, before=before: len(end.received) > before + 10)
    stop = True
    sent = await asyncio.gather(*flows)
    assert len(ends.a.received) + len(ends.b.received) == sum(sent) + 1


async def test_a_suite_below_the_floor_is_refused(pair: Maker) -> None:
    ends = await pair({"suites": ["otp"], "floor": "otp"})
    with pytest.raises(UnknownSuite):
        await ends.a.links.protect("8-9", ["aes-256-gcm"])
    with pytest.raises(KeyError):
        await ends.a.links.protect("7-8", ["otp"])


async def test_ends_without_a_common_suite_make_no_session(pair: Maker) -> None:
    ends = await pair({"suites": ["aes-256-gcm"]}, suites=["otp"], floor="otp")
    await until(lambda: "link-suite-refused" in ends.b.runtime.alarms)
    assert not ends.a.link.up


async def test_different_bootstrap_secrets_make_no_session(pair: Maker, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("11" * 32)
    (tmp_path / "two").write_text("22" * 32)
    ends = await pair({"bootstrap": "one"}, bootstrap="two")
    await until(lambda: "link-authentication-failed" in ends.a.runtime.alarms)
    assert not ends.a.link.up


async def test_the_same_bootstrap_secret_makes_one(pair: Maker, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("11" * 32 + "\n")
    ends = await pair({"bootstrap": "one"})
    await until(lambda: ends.a.link.up)


@pytest.mark.parametrize("content", ["11" * 31, "no hex at all", None])
async def test_a_bad_bootstrap_secret_stops_the_start(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "secret").write_text(content)
    ends = make_pair(tmp_path, {"bootstrap": "secret"})
    with pytest.raises(StartError, match="8-9"):
        await ends.a.start()


async def test_changed_messages_are_refused_counted_and_alarmed(pair: Maker, suite: str) -> None:
    ends = await pair({"suites": [suite]})
    await ends.a.link.call(ECHO, forward(), b"first", deadline=5)

    def change(field: str) -> Callable[[str, bytes], bytes]:
        def tamper(path: str, body: bytes) -> bytes:
            if path != ECHO.path:
                return body
            sealed = msgspec.json.decode(body, type=Sealed)
            bits = bytearray(getattr(sealed, field))
            bits[len(bits) // 2] ^= 1
            return msgspec.json.encode(msgspec.structs.replace(sealed, **{field: bytes(bits)}))

        return tamper

    for field in ("clear", "secret", "tag"):
        ends.a.wire.tamper_request = change(field)
        with pytest.raises(ServiceError) as refused:
            await ends.a.link.call(ECHO, forward(), b"secret", deadline=5)
        assert refused.value.code is ErrorCode.AUTHENTICATION
        ends.a.wire.tamper_request = lambda path, body: body
        ends.a.wire.tamper_reply = change(field)
        with pytest.raises(ServiceError) as refused:
            await ends.a.link.call(ECHO, forward(), b"secret", deadline=5)
        assert refused.value.code is ErrorCode.AUTHENTICATION
        ends.a.wire.tamper_reply = lambda path, body: body
    assert ends.b.runtime.alarms.count("link-authentication-failed") == 3
    assert ends.a.runtime.alarms.count("link-authentication-failed") == 3
    assert ends.b.link.status().rejected_total == 3
    _, back = await ends.a.link.call(ECHO, forward(), b"last", deadline=5)
    assert back == b"tsal"


async def test_a_repeated_message_is_refused_and_alarmed(pair: Maker, suite: str) -> None:
    ends = await pair({"suites": [suite]})
    await ends.a.link.send(RELAY_FORWARD, forward(), b"once", deadline=5)
    path, body = next(each for each in ends.a.wire.posted if each[0] == RELAY_FORWARD.path)
    with pytest.raises(ServiceError) as refused:
        await ends.a.wire.deliver(path, body)
    assert refused.value.code is ErrorCode.REPLAYED
    assert "link-message-replayed" in ends.b.runtime.alarms
    assert len(ends.b.received) == 1


async def test_a_message_cannot_be_used_for_another_operation_or_sent_back(pair: Maker) -> None:
    ends = await pair()
    await ends.a.link.send(RELAY_FORWARD, forward(), b"once", deadline=5)
    _, body = next(each for each in ends.a.wire.posted if each[0] == RELAY_FORWARD.path)
    with pytest.raises(ServiceError) as refused:
        await ends.a.wire.deliver(ECHO.path, body)
    assert refused.value.code is ErrorCode.MALFORMED
    with pytest.raises(ServiceError) as refused:
        await ends.b.wire.deliver(RELAY_FORWARD.path, body)
    assert refused.value.code is ErrorCode.AUTHENTICATION


async def test_messages_of_an_earlier_session_are_refused(pair: Maker) -> None:
    ends = await pair()
    await ends.a.link.send(RELAY_FORWARD, forward(), b"once", deadline=5)
    path, body = next(each for each in ends.a.wire.posted if each[0] == RELAY_FORWARD.path)
    await restart(ends.a)
    await ends.a.link.send(RELAY_FORWARD, forward(), b"twice", deadline=5)
    with pytest.raises(ServiceError) as refused:
        await ends.a.wire.deliver(path, body)
    assert refused.value.code is ErrorCode.UNKNOWN_SESSION


async def test_replayed_establishment_messages_change_nothing(pair: Maker) -> None:
    ends = await pair()
    await ends.a.link.call(ECHO, forward(), b"x", deadline=5)
    sessions = ends.b.sessions
    posted = {path: body for path, body in ends.a.wire.posted if path in (LINK_HELLO.path, LINK_ESTABLISH.path)}
    with pytest.raises(ServiceError) as refused:
        await ends.a.wire.deliver(LINK_HELLO.path, posted[LINK_HELLO.path])
    assert refused.value.code is ErrorCode.REPLAYED
    await ends.a.wire.deliver(LINK_ESTABLISH.path, posted[LINK_ESTABLISH.path])
    await restart(ends.b)
    await ends.a.link.call(ECHO, forward(), b"x", deadline=5)
    with pytest.raises(ServiceError):
        await ends.a.wire.deliver(LINK_ESTABLISH.path, posted[LINK_ESTABLISH.path])
    assert ends.b.sessions == sessions + 1
    _, back = await ends.a.link.call(ECHO, forward(), b"still", deadline=5)
    assert back == b"llits"


async def test_a_hello_with_a_wrong_signature_is_refused(pair: Maker) -> None:
    ends = await pair()
    await until(lambda: ends.a.link.up)
    _, body = next(each for each in ends.a.wire.posted if each[0] == LINK_HELLO.path)
    hello = msgspec.json.decode(body, type=SignedHello)
    forged = msgspec.structs.replace(hello, body=hello.body.replace(b'"epoch":0', b'"epoch":9'))
    with pytest.raises(ServiceError) as refused:
        await ends.a.wire.deliver(LINK_HELLO.path, msgspec.json.encode(forged))
    assert refused.value.code is ErrorCode.AUTHENTICATION
    assert "link-authentication-failed" in ends.b.runtime.alarms


async def test_wakes_are_authenticated_and_count_once(pair: Maker) -> None:
    ends = await pair()
    await until(lambda: ends.a.link.up)
    await restart(ends.b)
    await until(lambda: ends.b.link.up)
    wakes = [each for each in ends.b.wire.posted if each[0] == LINK_WAKE.path]
    assert wakes
    with pytest.raises(ServiceError) as refused:
        await ends.b.wire.deliver(*wakes[-1])
    assert refused.value.code is ErrorCode.REPLAYED


async def test_a_lost_answer_to_an_establishment_is_recovered(pair: Maker, tmp_path: Path) -> None:
    ends = make_pair(tmp_path)
    lost: list[bytes] = []

    def lose_first(path: str, body: bytes) -> bytes | None:
        if path == LINK_ESTABLISH.path and len(lost) < 3:
            lost.append(body)
            return None
        return body

    ends.a.wire.tamper_reply = lose_first
    await ends.start()
    serve(ends.a)
    serve(ends.b)
    try:
        _, back = await ends.a.link.call(ECHO, forward(), b"x", deadline=5)
        assert back == b"x"
        assert len(lost) == 3
    finally:
        await ends.stop()


async def test_lost_refill_answers_are_repeated(pair: Maker, tmp_path: Path) -> None:
    ends = make_pair(tmp_path)
    counts = {"seen": 0}

    def lose_half(path: str, body: bytes) -> bytes | None:
        if path == LINK_CONTROL.path:
            counts["seen"] += 1
            if counts["seen"] % 2:
                return None
        return body

    ends.a.wire.tamper_reply = lose_half
    await ends.start()
    serve(ends.a)
    serve(ends.b)
    try:
        _, back = await ends.a.link.call(ECHO, forward(), b"x" * 300, deadline=5)
        assert back == b"x" * 300
        assert ends.a.link.status().sessions_total == 1
        assert ends.a.runtime.alarms == []
    finally:
        await ends.stop()


async def test_who_has_no_link_is_forbidden(pair: Maker) -> None:
    ends = await pair()
    await ends.a.link.send(RELAY_FORWARD, forward(), b"once", deadline=5)
    stranger = type(ends.a.wire)(service("7"), service("9"), ends.b.routes)
    for path, body in list(ends.a.wire.posted):
        with pytest.raises(ServiceError) as refused:
            await stranger.deliver(path, body)
        assert refused.value.code is ErrorCode.FORBIDDEN


async def test_an_operation_nobody_serves_is_refused_without_deciding_anything(pair: Maker) -> None:
    ends = await pair()
    await until(lambda: ends.a.link.up)
    with pytest.raises(ServiceError) as refused:
        await ends.b.link.call(
            Operation("test.unserved", ECHO.pairs, Forward, Accepted, sealed=True), forward(), deadline=5
        )
    assert refused.value.code is ErrorCode.UNREACHABLE
    assert ACCESS_REQUEST.sealed
    with pytest.raises(ValueError, match="one-way"):
        await ends.a.link.call(RELAY_FORWARD, forward(), deadline=1)


async def test_a_handlers_refusal_reaches_the_caller(pair: Maker) -> None:
    ends = await pair()

    async def refuse(neighbour: ServiceName, request: Forward, secret: bytes) -> tuple[Forward, bytes]:
        raise ServiceError(ErrorCode.NOT_PERMITTED, "no")

    ends.b.link.serve(ECHO, refuse)
    with pytest.raises(ServiceError) as refused:
        await ends.a.link.call(ECHO, forward(), b"x", deadline=5)
    assert refused.value.code is ErrorCode.NOT_PERMITTED


async def test_an_idle_link_exchanges_nothing(pair: Maker) -> None:
    ends = await pair({"suites": ["otp"]})
    for node in (ends.a, ends.b):
        await until(lambda node=node: node.link.status().outgoing.payload_available > 8192 - 640)
        await until(lambda node=node: node.link._core.outgoing.wanted({}) is None)
    before = [_metric(node, "keyhaul_link_control_exchanges_total") for node in (ends.a, ends.b)]
    for _ in range(20):
        for node in (ends.a, ends.b):
            await node.link._refill.fetch()
            assert await node.link._step() == QUICK.idle
    assert [_metric(node, "keyhaul_link_control_exchanges_total") for node in (ends.a, ends.b)] == before


def _metric(node: Node, name: str) -> float:
    return node.runtime.registry.get_sample_value(name, {"link": "8-9"}) or 0.0


async def test_a_link_that_is_switched_off_carries_nothing_until_it_is_on_again(pair: Maker, suite: str) -> None:
    ends = await pair({"suites": [suite]})
    await ends.a.link.call(ECHO, forward(), b"before", deadline=5)
    sessions = ends.a.link.status().sessions_total
    await ends.a.links.enable(ends.a.link.id, False)
    assert ends.a.link.status().state == "disabled"
    assert not ends.a.link.up
    for end in (ends.a, ends.b):
        with pytest.raises(ServiceError) as refused:
            await end.link.call(ECHO, forward(), b"while it is off", deadline=5)
        assert refused.value.code is ErrorCode.UNREACHABLE
    await ends.a.links.enable(ends.a.link.id, True)
    assert (await ends.b.link.call(ECHO, forward(), b"after", deadline=5))[1] == b"retfa"
    assert ends.a.link.status().sessions_total == sessions


def _refusing(node: Node, code: ErrorCode, retry_after_ms: int = 0) -> None:
    async def refuse(neighbour: ServiceName, message: Forward, secret: bytes) -> tuple[Forward, bytes]:
        raise ServiceError(code, "it does not suit", retry_after_ms=retry_after_ms)

    node.link.serve(ECHO, refuse)


async def test_a_handler_refuses_under_the_links_keys(pair: Maker, suite: str) -> None:
    ends = await pair({"suites": [suite]})
    _refusing(ends.b, ErrorCode.CONFLICT, retry_after_ms=70)
    for _ in range(2):
        with pytest.raises(ServiceError) as refused:
            await ends.a.link.call(ECHO, forward(), b"secret", deadline=5)
        assert (refused.value.code, refused.value.message) == (ErrorCode.CONFLICT, "it does not suit")
        assert refused.value.retry_after_ms == 70


async def test_a_refusal_that_was_changed_or_belongs_to_another_request_decides_nothing(
    pair: Maker, suite: str
) -> None:
    ends = await pair({"suites": [suite]})
    _refusing(ends.b, ErrorCode.NOT_FOUND)
    replies: list[bytes] = []

    def keep(path: str, body: bytes) -> bytes:
        if path == ECHO.path:
            replies.append(body)
        return body

    def change(path: str, body: bytes) -> bytes:
        if path != ECHO.path:
            return body
        sealed = msgspec.json.decode(body, type=Sealed)
        clear = sealed.clear.replace(b"not-found", b"forbidden")
        return msgspec.json.encode(msgspec.structs.replace(sealed, clear=clear))

    ends.a.wire.tamper_reply = keep
    with pytest.raises(ServiceError) as refused:
        await ends.a.link.call(ECHO, forward(), b"secret", deadline=5)
    assert refused.value.code is ErrorCode.NOT_FOUND
    ends.a.wire.tamper_reply = change
    with pytest.raises(ServiceError) as refused:
        await ends.a.link.call(ECHO, forward(), b"secret", deadline=5)
    assert refused.value.code is ErrorCode.AUTHENTICATION
    ends.a.wire.tamper_reply = lambda path, body: replies[0] if path == ECHO.path else body
    with pytest.raises(ServiceError) as refused:
        await ends.a.link.call(ECHO, forward(), b"secret", deadline=5)
    assert refused.value.code is ErrorCode.UNREACHABLE
    assert ends.a.link.status().rejected_total == 2


async def test_an_answer_is_not_taken_for_a_refusal_nor_a_refusal_for_an_answer(pair: Maker) -> None:
    ends = await pair()

    def relabel(old: bytes, new: bytes) -> Callable[[str, bytes], bytes]:
        def tamper(path: str, body: bytes) -> bytes:
            if path != ECHO.path:
                return body
            sealed = msgspec.json.decode(body, type=Sealed)
            header = sealed.header.replace(old, new)
            assert header != sealed.header
            return msgspec.json.encode(msgspec.structs.replace(sealed, header=header))

        return tamper

    kind = f'"{ECHO.name}"'.encode()
    refused_kind = f'"{ECHO.name}.refused"'.encode()
    ends.a.wire.tamper_reply = relabel(kind, refused_kind)
    with pytest.raises(ServiceError) as refused:
        await ends.a.link.call(ECHO, forward(), b"secret", deadline=5)
    assert refused.value.code is ErrorCode.AUTHENTICATION
    _refusing(ends.b, ErrorCode.NOT_FOUND)
    ends.a.wire.tamper_reply = relabel(refused_kind, kind)
    with pytest.raises(ServiceError) as refused:
        await ends.a.link.call(ECHO, forward(), b"secret", deadline=5)
    assert refused.value.code is ErrorCode.AUTHENTICATION


async def test_a_refusal_outside_the_links_keys_is_not_final(pair: Maker) -> None:
    ends = await pair()
    await ends.a.link.call(ECHO, forward(), b"x", deadline=5)

    def forbid(path: str, body: bytes) -> bytes:
        if path == ECHO.path:
            raise ServiceError(ErrorCode.FORBIDDEN, "somebody says so")
        return body

    ends.a.wire.tamper_request = forbid
    with pytest.raises(ServiceError, match="outside the link's keys: somebody says so") as refused:
        await ends.a.link.call(ECHO, forward(), b"secret", deadline=5)
    assert refused.value.code is ErrorCode.UNREACHABLE


async def test_the_module_is_looked_at_often_while_a_message_waits_for_pad(pair: Maker) -> None:
    """With some pad left, but not enough: on a slow link the next keys are not to wait for the usual look."""
    ends = await pair({"suites": ["otp"], "floor": "otp"})
    await until(lambda: ends.a.link.status().outgoing.payload_available > 8192 - 640)
    ends.modules.stock = 0
    while ends.a.link.status().outgoing.payload_available > 1500:
        await ends.a.link.send(RELAY_FORWARD, forward(), bytes(500), deadline=5)
    assert ends.a.link.status().outgoing.payload_available > HUNGRY
    assert (await ends.a.link._refill.fetch()).latest == QUICK.fill
    waiting = asyncio.create_task(ends.a.link.send(RELAY_FORWARD, forward(), bytes(2000), deadline=5))
    await until(lambda: ends.a.link._sealing.demand()[Stream.PAYLOAD] >= 2000)
    assert (await ends.a.link._refill.fetch()).latest == QUICK.hungry
    ends.modules.stock = 1_000
    await waiting


async def test_an_offer_brings_what_the_first_message_waits_for(pair: Maker) -> None:
    """On a slow link keys come a few at a time: each offer costs two tags, and the message needs all of them."""
    ends = await pair({"suites": ["otp"], "floor": "otp"})
    await until(lambda: ends.a.link.status().outgoing.payload_available > 8192 - 640)
    ends.modules.stock = 0
    while ends.a.link.status().outgoing.payload_available > HUNGRY:
        await ends.a.link.send(RELAY_FORWARD, forward(), bytes(100), deadline=5)
    waiting = asyncio.create_task(ends.a.link.send(RELAY_FORWARD, forward(), bytes(600), deadline=5))
    await until(lambda: ends.a.link._sealing.foremost(Stream.PAYLOAD) == 616)
    lacking = 616 - ends.a.link.status().outgoing.payload_available
    assert lacking > 256
    ends.modules.stock = lacking // 32 - 1
    for _ in range(3):
        await ends.a.link._refill.fetch()
    assert ends.modules.stock == lacking // 32 - 1
    ends.modules.stock = lacking // 32 + 1
    await waiting
