"""A gNMI client on grpc.aio, for many targets in one process: unary calls with deadlines, and telemetry that notices
when its target falls silent (gRPC's own keepalive finds a frozen peer after 3 to 13 s, as traffic has it).

Each target is dialled on a connection of its own, proves its service id by its certificate, and tells which key
agreement the connection has (`tls`). Values are left as JSON: whoever knows their type decodes them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import grpc
import msgspec
from pygnmi.spec.v080 import gnmi_pb2, gnmi_pb2_grpc

from keyhaul.agents.gnmi import paths
from keyhaul.agents.gnmi.errors import Code
from keyhaul.agents.gnmi.failures import (
    Broken,
    Ended,
    Late,
    RefusedByTarget,
    Silent,
    TargetError,
    Unprotected,
    Unreachable,
)
from keyhaul.agents.gnmi.notices import Notice, Update, Wanted, period, subscription_list, updates
from keyhaul.agents.gnmi.peers import GROUP
from keyhaul.agents.gnmi.tls import GROUP_KEY, channel_credentials
from keyhaul.identity.names import ServiceName
from keyhaul.transport.tls import TlsFiles

SILENCE = 5.0
"""Seconds without a message after which a target counts as frozen."""

_LOOK = 0.05
"""Seconds between two looks whether a target is silent, at least: its clock may be slower than the loop's."""

_MESSAGE = 64 << 20
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", _MESSAGE),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
)


class Client:
    """Calls one target. Use as `async with`, or call `close`."""

    def __init__(self, address: str, peer: ServiceName, files: TlsFiles) -> None:
        """Dial nothing yet.

        Args:
            address: HOST:PORT.
            peer: who must answer there.
            files: own P-256 certificate and key, and the authorities of targets' certificates. Files that change are
                used from the next connection on.
        """
        self.peer = peer
        self._address = address
        self._files = files
        self._stamp: object = None
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None

    async def __aenter__(self) -> Self:
        """Return this client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """End all calls and the connection; a later call dials anew."""
        channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            await channel.close()

    async def capabilities(self, *, deadline: float) -> Any:
        """Return the target's CapabilityResponse.

        Raises:
            TargetError: by its kinds.
        """
        return await self._call("Capabilities", gnmi_pb2.CapabilityRequest(), deadline)

    async def get(self, places: Iterable[str], *, deadline: float, kind: str = "ALL") -> list[tuple[Update, ...]]:
        """Return what is at each of some paths, wildcards allowed.

        Args:
            places: paths as `paths.parse` reads them.
            deadline: seconds.
            kind: ALL, CONFIG, STATE or OPERATIONAL.

        Raises:
            TargetError: by its kinds.
        """
        request = gnmi_pb2.GetRequest(
            path=[paths.to_proto(paths.parse(place)) for place in places],
            type=gnmi_pb2.GetRequest.DataType.Value(kind),
            encoding=gnmi_pb2.JSON_IETF,
        )
        response = await self._call("Get", request, deadline)
        return [updates(notification) for notification in response.notification]

    async def set(
        self,
        *,
        deadline: float,
        delete: Sequence[str] = (),
        replace: Mapping[str, Any] | None = None,
        update: Mapping[str, Any] | None = None,
    ) -> int:
        """Change configuration, all of it or nothing.

        Args:
            deadline: seconds.
            delete: paths.
            replace: values by path, as JSON_IETF has them (64-bit numbers and octets as strings).
            update: likewise.

        Returns:
            When it took effect: nanoseconds since 1970, by the target's clock.

        Raises:
            TargetError: by its kinds; only after `Late`, `Unreachable` and `Broken` may it have taken effect.
        """
        request = gnmi_pb2.SetRequest(
            delete=[paths.to_proto(paths.parse(place)) for place in delete],
            replace=[_put(place, value) for place, value in (replace or {}).items()],
            update=[_put(place, value) for place, value in (update or {}).items()],
        )
        response = await self._call("Set", request, deadline)
        return int(response.timestamp)

    async def subscribe(
        self,
        wanted: Sequence[Wanted],
        *,
        silence: float = SILENCE,
        updates_only: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> AsyncGenerator[Notice, None]:
        """Subscribe (STREAM) and yield what comes, until the caller stops or something fails.

        Args:
            wanted: what, and when.
            silence: seconds without a message after which the target counts as frozen. Something of `wanted`
                must be told at least twice in that time.
            updates_only: leave out what is there at the beginning.
            clock: by which silence is measured, seconds.

        Raises:
            ValueError: nothing is told often enough to tell a quiet target from a frozen one.
            TargetError: by its kinds; it always ends with one.
        """
        if not any(period(each) <= silence / 2 for each in wanted):
            raise ValueError(f"nothing is sampled, without suppression, or has a heartbeat, every {silence / 2} s")
        stub = await self._dialled()
        call = stub.Subscribe()
        watch = _Watch(silence, clock)
        try:
            with watch:
                await call.write(gnmi_pb2.SubscribeRequest(subscribe=subscription_list(wanted, updates_only)))
                message = await call.read()
            if message is not grpc.aio.EOF:
                self._check(await call.initial_metadata())
            while message is not grpc.aio.EOF:
                if message.sync_response:
                    yield Notice(0, (), (), synced=True)
                elif message.HasField("update"):
                    notification = message.update
                    deletes = tuple([paths.from_proto(path) for path in notification.delete])
                    yield Notice(notification.timestamp, deletes, updates(notification))
                with watch:
                    message = await call.read()
            code, details = await call.code(), await call.details()
            if code is not grpc.StatusCode.OK:
                raise self._error(code, details)
            raise Ended(f"{self.peer}: the target ended the subscription")
        except grpc.aio.AioRpcError as error:
            raise self._error(error.code(), error.details()) from None
        except asyncio.CancelledError:
            self._raise_if_closed()
            raise
        except TimeoutError:
            await self.close()
            raise Silent(f"{self.peer}: nothing came for {silence} s") from None
        finally:
            watch.end()
            call.cancel()

    async def _call(self, rpc: str, request: Any, deadline: float) -> Any:
        stub = await self._dialled()
        call = getattr(stub, rpc)(request, timeout=deadline)
        try:
            response = await call
            self._check(await call.initial_metadata())
        except grpc.aio.AioRpcError as error:
            raise self._error(error.code(), error.details()) from None
        except asyncio.CancelledError:
            self._raise_if_closed()
            raise
        return response

    async def _dialled(self) -> Any:
        stamp = self._files.stamp()
        if self._stub is None or stamp != self._stamp:
            credentials = channel_credentials(self._files)
            options = (*_OPTIONS, ("grpc.ssl_target_name_override", self.peer.id))
            former, self._channel = self._channel, grpc.aio.secure_channel(self._address, credentials, options)
            self._stub, self._stamp = gnmi_pb2_grpc.gNMIStub(self._channel), stamp
            if former is not None:
                await former.close()
        return self._stub

    def _check(self, metadata: Any) -> None:
        group = dict(metadata or ()).get(GROUP_KEY)
        if group != GROUP:
            raise Unprotected(f"{self.peer}: the connection's key agreement is {group or 'not told'}, not {GROUP}")

    def _raise_if_closed(self) -> None:
        """Tell the end of a connection, which gRPC makes look like a cancellation, from a cancellation."""
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            raise Unreachable(f"{self.peer}: the connection was given up") from None

    def _error(self, code: grpc.StatusCode, details: str | None) -> TargetError:
        message = f"{self.peer}: {details or code.name}"
        match code:
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
                return Unreachable(message)
            case grpc.StatusCode.UNKNOWN | grpc.StatusCode.INTERNAL:
                return Broken(message)
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return Late(message)
        number = code.value[0]
        return RefusedByTarget(message, Code(number) if number in frozenset(Code) else None)


class _Watch:
    """Turns too long a wait into `TimeoutError`. One timer serves all waits of a subscription."""

    def __init__(self, silence: float, clock: Callable[[], float]) -> None:
        self._silence = silence
        self._clock = clock
        self._task: asyncio.Task[Any] | None = None
        """Who waits."""
        self._since = 0.0
        self._cancels = 0
        self._expired = False
        self._timer = asyncio.get_running_loop().call_later(silence, self._look)

    def end(self) -> None:
        """There will be no more waits."""
        self._timer.cancel()

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancels, self._since = self._task.cancelling(), self._clock()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        task, self._task = self._task, None
        if self._expired and task is not None and task.uncancel() <= self._cancels and kind is asyncio.CancelledError:
            raise TimeoutError from None

    def _look(self) -> None:
        left = self._silence if self._task is None else self._since + self._silence - self._clock()
        if self._task is not None and left <= 0:
            self._expired = True
            self._task.cancel()
            return
        self._timer = asyncio.get_running_loop().call_later(max(left, _LOOK), self._look)


def _put(place: str, value: Any) -> Any:
    encoded = msgspec.json.encode(value)
    return gnmi_pb2.Update(path=paths.to_proto(paths.parse(place)), val=gnmi_pb2.TypedValue(json_ietf_val=encoded))
