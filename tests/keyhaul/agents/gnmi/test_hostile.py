"""Clients that mean no good: what they get is an error, and the others are served as before."""

from __future__ import annotations

import asyncio
import datetime
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from pygnmi.spec.v080 import gnmi_pb2, gnmi_pb2_grpc

from keyhaul.agents.gnmi.limits import Limits
from keyhaul.agents.gnmi.models import ckms
from keyhaul.agents.gnmi.paths import parse, to_proto
from keyhaul.agents.gnmi.tls import channel_credentials
from keyhaul.identity.names import Role
from keyhaul.transport.tls import TlsFiles
from tests.keyhaul.agents.gnmi.carrier import STATEMENTS, Carrier, link
from tests.keyhaul.agents.gnmi.pki import CONTROLLER, Twins, leaf, service
from tests.keyhaul.agents.gnmi.running import LIMITS, Running, until, within

LINKS = f"/{ckms.TOP}/links/link"


class Raw:
    """gNMI's stubs over a connection of their own."""

    def __init__(self, running: Running, files: TlsFiles | None = None, credentials: Any = None) -> None:
        self.channel = grpc.aio.secure_channel(
            running.address,
            credentials or channel_credentials(files or running.twins.files(CONTROLLER)),
            [("grpc.ssl_target_name_override", "ckms-9"), ("grpc.use_local_subchannel_pool", 1)],
        )
        self.stub = gnmi_pb2_grpc.gNMIStub(self.channel)

    async def __aenter__(self) -> Any:
        return self.stub

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()


def subscribe(path: str = LINKS, mode: int = gnmi_pb2.ON_CHANGE, **facts: Any) -> Any:
    wanted = gnmi_pb2.Subscription(path=to_proto(parse(path)), mode=mode)
    return gnmi_pb2.SubscribeRequest(subscribe=gnmi_pb2.SubscriptionList(subscription=[wanted], **facts))


async def code(awaited: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await within(awaited)
    found = caught.value.code()
    assert isinstance(found, grpc.StatusCode)
    return found


async def everything(stub: Any) -> list[grpc.StatusCode]:
    stream = stub.Subscribe()
    with_set = gnmi_pb2.SetRequest(delete=[to_proto(parse(STATEMENTS))])
    return [
        await code(stub.Capabilities(gnmi_pb2.CapabilityRequest(), timeout=5)),
        await code(stub.Get(gnmi_pb2.GetRequest(path=[to_proto(parse(LINKS))]), timeout=5)),
        await code(stub.Set(with_set, timeout=5)),
        await code(stream.read()),
    ]


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.CONTROLLER])
async def test_no_other_role_gets_anything(running: Running, role: Role) -> None:
    async with Raw(running, running.twins.files(service(role, "1"))) as stub:
        assert set(await everything(stub)) == {grpc.StatusCode.PERMISSION_DENIED}
    assert not running.carrier.book.seen
    assert {peer for _, peer, _ in running.refusals} == {None}


async def test_connections_that_come_to_nothing_are_counted(running: Running) -> None:
    shakes = running.target.handshakes
    async with running.client() as client:
        for _ in range(3):
            await client.capabilities(deadline=5)
    assert (shakes.begun_total, shakes.proved_total) == (1, 1)
    nobody = grpc.ssl_channel_credentials(running.files.trust.read_bytes())
    async with Raw(running, credentials=nobody) as stub:
        assert await code(stub.Capabilities(gnmi_pb2.CapabilityRequest(), timeout=5)) is grpc.StatusCode.UNAVAILABLE
    assert shakes.begun_total > 1
    assert shakes.proved_total == 1
    async with Raw(running, running.twins.files(service(Role.AKMS, "1"))) as stub:
        await everything(stub)
    assert shakes.proved_total == 2, "who is refused by name did come to an RPC"


async def test_without_a_certificate_there_is_no_connection(running: Running) -> None:
    nobody = grpc.ssl_channel_credentials(running.files.trust.read_bytes())
    async with Raw(running, credentials=nobody) as stub:
        assert set(await everything(stub)) == {grpc.StatusCode.UNAVAILABLE}


async def test_a_stranger_is_not_connected(running: Running, tmp_path_factory: pytest.TempPathFactory) -> None:
    strange = Twins(tmp_path_factory.mktemp("strange")).files(CONTROLLER)
    strange.trust.write_bytes(running.files.trust.read_bytes())
    async with Raw(running, strange) as stub:
        assert set(await everything(stub)) == {grpc.StatusCode.UNAVAILABLE}


async def test_a_controller_of_another_domain_gets_nothing(running: Running) -> None:
    async with Raw(running, running.twins.files(service(Role.CONTROLLER, "1", "other.example"))) as stub:
        assert set(await everything(stub)) == {grpc.StatusCode.UNAUTHENTICATED}


async def test_passwords_are_refused(running: Running) -> None:
    async with Raw(running) as stub:
        given = (("username", "admin"), ("password", "admin"))
        refused = stub.Capabilities(gnmi_pb2.CapabilityRequest(), timeout=5, metadata=given)
        assert await code(refused) is grpc.StatusCode.UNAUTHENTICATED


def openssl(running: Running, files: TlsFiles, *options: str, send: bytes = b"") -> tuple[int, str]:
    command = ["openssl", "s_client", "-connect", running.address, "-alpn", "h2", "-brief", *options]
    identity = ["-cert", str(files.certificate), "-key", str(files.key), "-CAfile", str(files.trust)]
    done = subprocess.run([*command, *identity], input=send, capture_output=True, timeout=20)
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


async def test_tls_1_2_is_refused(running: Running) -> None:
    files = running.twins.files(CONTROLLER)
    assert "CONNECTION ESTABLISHED" not in (await asyncio.to_thread(openssl, running, files, "-tls1_2"))[1]
    assert "TLSv1.3" in (await asyncio.to_thread(openssl, running, files, "-tls1_3"))[1]


async def test_bad_requests_get_the_specifications_codes(running: Running) -> None:
    path = to_proto(parse(LINKS))
    async with Raw(running) as stub:
        for request, expected in (
            (gnmi_pb2.GetRequest(path=[to_proto(parse("/weather"))]), grpc.StatusCode.UNIMPLEMENTED),
            (gnmi_pb2.GetRequest(path=[path], encoding=gnmi_pb2.PROTO), grpc.StatusCode.UNIMPLEMENTED),
            (gnmi_pb2.GetRequest(path=[to_proto(parse(f"{LINKS}[neighbour=ckms-7]"))]), grpc.StatusCode.NOT_FOUND),
            (gnmi_pb2.GetRequest(path=[to_proto(parse(f"{LINKS}[x=y]"))]), grpc.StatusCode.INVALID_ARGUMENT),
            (gnmi_pb2.GetRequest(path=[path] * 65), grpc.StatusCode.RESOURCE_EXHAUSTED),
            (gnmi_pb2.GetRequest(path=[path], use_models=[{"name": "x"}]), grpc.StatusCode.UNIMPLEMENTED),
        ):
            assert await code(stub.Get(request, timeout=5)) is expected


async def test_huge_messages_are_refused(running: Running) -> None:
    value = gnmi_pb2.TypedValue(json_val=b'"' + b"x" * (5 << 20) + b'"')
    update = gnmi_pb2.Update(path=to_proto(parse(f"{STATEMENTS}[serial=1]/body")), val=value)
    async with Raw(running) as stub:
        refused = stub.Set(gnmi_pb2.SetRequest(update=[update]), timeout=10)
        assert await code(refused) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await stub.Capabilities(gnmi_pb2.CapabilityRequest(), timeout=5)).gNMI_version


async def test_a_thousand_paths_and_a_thousand_streams(running: Running) -> None:
    async with Raw(running) as stub:
        many = gnmi_pb2.SubscriptionList(subscription=[gnmi_pb2.Subscription(path=to_proto(parse(LINKS)))] * 1000)
        stream = stub.Subscribe()
        await stream.write(gnmi_pb2.SubscribeRequest(subscribe=many))
        assert await code(stream.read()) is grpc.StatusCode.RESOURCE_EXHAUSTED
        streams = [stub.Subscribe() for _ in range(1000)]

        async def first(each: Any) -> bool:
            try:
                await each.write(subscribe())
                return isinstance(await each.read(), gnmi_pb2.SubscribeResponse)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return False

        tasks = [asyncio.create_task(first(each)) for each in streams]
        served = [await within(task, 60) for task in tasks]
        assert (sum(served), running.target.streams) == (running.limits.streams, running.limits.streams)
    await until(lambda: running.target.streams == 0)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([gnmi_pb2.SubscribeRequest(poll=gnmi_pb2.Poll())], grpc.StatusCode.INVALID_ARGUMENT),
        ([gnmi_pb2.SubscribeRequest()], grpc.StatusCode.INVALID_ARGUMENT),
        ([gnmi_pb2.SubscribeRequest(aliases=gnmi_pb2.AliasList())], grpc.StatusCode.UNIMPLEMENTED),
        ([subscribe(), subscribe()], grpc.StatusCode.INVALID_ARGUMENT),
        ([subscribe(), gnmi_pb2.SubscribeRequest(poll=gnmi_pb2.Poll())], grpc.StatusCode.INVALID_ARGUMENT),
        ([subscribe("/weather")], grpc.StatusCode.UNIMPLEMENTED),
    ],
)
async def test_subscriptions_out_of_order(running: Running, messages: list[Any], expected: grpc.StatusCode) -> None:
    async with Raw(running) as stub:
        stream = stub.Subscribe()
        for message in messages:
            await stream.write(message)

        async def to_the_end() -> None:
            while await stream.read() is not grpc.aio.EOF:
                pass

        assert await code(to_the_end()) is expected
    await until(lambda: running.target.streams == 0)


async def test_a_client_that_has_nothing_more_to_say_goes_on_listening(running: Running, carrier: Carrier) -> None:
    async with Raw(running) as stub:
        stream = stub.Subscribe()
        await stream.write(subscribe())
        await stream.done_writing()
        assert (await within(stream.read())).update.update
        assert (await within(stream.read())).sync_response
        carrier.links["ckms-8"]["up"] = False
        assert (await within(stream.read())).update.update
        stream.cancel()


async def test_polls_are_each_answered_also_after_the_last_word(running: Running) -> None:
    asked = subscribe()
    asked.subscribe.mode = gnmi_pb2.SubscriptionList.POLL
    async with Raw(running) as stub:
        stream = stub.Subscribe()
        await stream.write(asked)
        for _ in range(3):
            await stream.write(gnmi_pb2.SubscribeRequest(poll=gnmi_pb2.Poll()))
        await stream.done_writing()
        syncs = 0
        while (message := await within(stream.read())) is not grpc.aio.EOF:
            syncs += message.sync_response
        assert syncs == 3
        assert await stream.code() is grpc.StatusCode.OK


async def test_who_says_nothing_is_not_waited_for(twins: Twins, carrier: Carrier) -> None:
    running = await Running.start(twins, carrier, Limits(first=0.1))
    async with Raw(running) as stub:
        assert await code(stub.Subscribe().read()) is grpc.StatusCode.DEADLINE_EXCEEDED
    await running.stop()


async def test_a_slow_reader_costs_little_and_is_left_in_the_end(twins: Twins, carrier: Carrier) -> None:
    running = await Running.start(twins, carrier, Limits(look=0.001, fresh=0.0, write=1.0))
    carrier.links = {f"ckms-{number}": link(f"ckms-{number}") for number in range(200)}
    async with Raw(running) as slow, Raw(running) as quick:
        stream = slow.Subscribe()
        await stream.write(subscribe())
        await until(lambda: running.target.streams == 1)

        async def change() -> AsyncIterator[None]:
            rate = 0
            while running.target.streams:
                rate += 1
                for each in carrier.links.values():
                    each["rate"] = rate
                carrier.tree.refresh()
                yield

        async with asyncio.timeout(30):
            async for _ in change():
                await asyncio.sleep(0)
                answer = await quick.Capabilities(gnmi_pb2.CapabilityRequest(), timeout=5)
                assert answer.gNMI_version == "0.8.0"

        async def to_the_end() -> None:
            while await stream.read() is not grpc.aio.EOF:
                pass

        assert await code(to_the_end()) is grpc.StatusCode.ABORTED
    await running.stop()


async def test_a_revoked_controller_loses_its_stream_and_every_call(twins: Twins, carrier: Carrier) -> None:
    running = await Running.start(twins, carrier, LIMITS)
    files = twins.files(service(Role.CONTROLLER, "7"))
    async with Raw(running, files) as stub:
        stream = stub.Subscribe()
        await stream.write(subscribe())
        assert (await within(stream.read())).update.update
        assert (await within(stream.read())).sync_response
        twins.revoke(leaf(files))
        twins.write_crl(running.files)
        assert await code(stream.read()) is grpc.StatusCode.UNAUTHENTICATED
        assert await code(stub.Capabilities(gnmi_pb2.CapabilityRequest())) is grpc.StatusCode.UNAUTHENTICATED
        assert {refused.message for _, _, refused in running.refusals} == {"the certificate was revoked"}
    twins.revoked.clear()
    await running.stop()


async def test_the_target_renews_its_certificate_while_it_runs(running: Running) -> None:
    before = leaf(running.files)
    running.twins.renew(running.files, service(Role.CKMS, "9"))
    shown = await asyncio.to_thread(openssl, running, running.twins.files(CONTROLLER), "-showcerts")
    assert "CONNECTION ESTABLISHED" in shown[1]
    async with Raw(running) as stub:
        assert (await stub.Capabilities(gnmi_pb2.CapabilityRequest(), timeout=5)).gNMI_version == "0.8.0"
    assert leaf(running.files).serial_number != before.serial_number
    running.files.certificate.write_text("nonsense")
    async with Raw(running) as stub:
        assert (await stub.Capabilities(gnmi_pb2.CapabilityRequest(), timeout=5)).gNMI_version == "0.8.0"


async def test_a_set_runs_to_its_end_though_its_client_goes(running: Running, carrier: Carrier) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    write = carrier.book.write

    async def slowly(edits: Any) -> Any:
        reached.set()
        await go_on.wait()
        return await write(edits)

    carrier.book.write = slowly  # type: ignore[method-assign]
    value = gnmi_pb2.TypedValue(json_ietf_val=b'{"body":"e30=","signature":""}')
    update = gnmi_pb2.Update(path=to_proto(parse(f"{STATEMENTS}[serial=5]")), val=value)
    async with Raw(running) as stub:
        call = stub.Set(gnmi_pb2.SetRequest(update=[update]), timeout=10)
        waiting = asyncio.ensure_future(code(call))
        await within(reached.wait())
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go_on.set()
        await until(lambda: 5 in carrier.book.held)


async def test_an_expired_certificate_ends_what_it_began(twins: Twins, carrier: Carrier) -> None:
    running = await Running.start(twins, carrier, LIMITS)
    later = datetime.timedelta()
    wall = running.target._wall
    running.target._wall = lambda: wall() + round(later.total_seconds() * 1e9)
    async with Raw(running) as stub:
        assert (await stub.Capabilities(gnmi_pb2.CapabilityRequest(), timeout=5)).gNMI_version
        later = datetime.timedelta(days=31)
        refused = stub.Capabilities(gnmi_pb2.CapabilityRequest(), timeout=5)
        assert await code(refused) is grpc.StatusCode.UNAUTHENTICATED
    await running.stop()
