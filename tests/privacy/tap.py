"""A tap inside a service process: every plain byte of every TLS session, and every secret that a link opened.

It sits below HTTP, so that nothing which a service says or hears escapes it, whatever part of it speaks.
"""

from __future__ import annotations

import os
import struct
import time
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509

_LENGTH = struct.Struct(">I")


class Record(msgspec.Struct, array_like=True):
    """One piece of what passed."""

    at: float
    """CLOCK_MONOTONIC, the same in all processes."""
    kind: str
    """`tls`: plain bytes in a TLS session. `gnmi`: a gNMI message, whose TLS is another. `secret`: what a sealed
    message hid, opened."""
    connection: str
    """Unique in the process; of a secret the operation's name, of a gNMI message that of the RPC."""
    server: bool
    """Whether this service is the TLS server."""
    peer: str
    """The peer's URI or common name, e.g. ``akms-abbeywood``."""
    incoming: bool
    data: bytes


class Recorder:
    """Appends to one file for each process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._service = ""
        self._file = -1

    def name(self, service: str) -> None:
        """From now on this process is that service."""
        self._service = service

    def write(self, record: Record) -> None:
        """Append a record; it is with the kernel when this returns."""
        if self._file < 0:
            path = self._directory / f"{self._service}.{os.getpid()}.tap"
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        body = msgspec.msgpack.encode(record)
        os.write(self._file, _LENGTH.pack(len(body)) + body)


def service_of(config: Path) -> str:
    """The service id that a configuration file is for."""
    section = tomllib.loads(config.read_text())["service"]
    return f"{section['role']}-{section['node']}"


def install(directory: Path) -> Recorder:
    """Tap this process and those that it forks."""
    import keyhaul.runtime.process as process
    from keyhaul.link.protection.registry import PROTECTIONS
    from keyhaul.transport.tls_session import TlsSession

    recorder = Recorder(directory)
    serve, read, write = process.serve, TlsSession.read, TlsSession.write
    numbers: dict[int, str] = {}

    def named_serve(role: Any, config_path: Path) -> int:
        service = service_of(config_path)
        recorder.name(service)
        if service.startswith("controller-"):
            _tap_gnmi(recorder)
        return serve(role, config_path)

    def note(session: TlsSession, incoming: bool, data: bytes) -> None:
        number = getattr(session, "tap_number", None)
        if number is None:
            number = f"{os.getpid()}.{len(numbers)}"
            numbers[len(numbers)] = number
            session.tap_number = number  # type: ignore[attr-defined]
            session.tap_peer = _peer(session.verified_chain()[0])  # type: ignore[attr-defined]
        peer: str = session.tap_peer  # type: ignore[attr-defined]
        recorder.write(Record(time.monotonic(), "tls", number, session.server_side, peer, incoming, data))

    def tapped_read(session: TlsSession, size: int = 16_384, buffer: Any = None) -> Any:
        result = read(session, size, buffer)
        data = bytes(memoryview(buffer)[:result]) if buffer is not None else bytes(result)
        if data:
            note(session, True, data)
        return result

    def tapped_write(session: TlsSession, data: Any) -> int:
        plain = bytes(data)
        done = write(session, data)
        if done:
            note(session, False, plain[:done])
        return done

    def tap_protection(suite: Any) -> None:
        opened = suite.open

        def tapped_open(self: Any, pads: Any, head: Any, *rest: Any) -> bytes:
            secret: bytes = opened(self, pads, head, *rest)
            if secret:
                recorder.write(Record(time.monotonic(), "secret", head.kind, False, head.link, True, secret))
            return secret

        suite.open = tapped_open

    process.serve = named_serve
    TlsSession.read = tapped_read  # type: ignore[assignment, method-assign]
    TlsSession.write = tapped_write  # type: ignore[assignment, method-assign]
    for suite in PROTECTIONS.values():
        tap_protection(suite)
    return recorder


def _tap_gnmi(recorder: Recorder) -> None:
    """Record all that a controller asks and is told: it is the client of every agent."""
    import_module("keyhaul.agents.gnmi.client")  # it sets up gRPC's TLS before gRPC is there
    from pygnmi.spec.v080 import gnmi_pb2_grpc

    stub = gnmi_pb2_grpc.gNMIStub

    class Tapped:
        """A channel whose messages are recorded as they are written and read."""

        def __init__(self, channel: Any) -> None:
            self._channel = channel

        def __getattr__(self, kind: str) -> Any:
            make = getattr(self._channel, kind)

            def tapped(rpc: str, request_serializer: Any, response_deserializer: Any, **more: Any) -> Any:
                def asked(request: Any) -> bytes:
                    data: bytes = request_serializer(request)
                    recorder.write(Record(time.monotonic(), "gnmi", rpc, False, "", False, data))
                    return data

                def told(data: bytes) -> Any:
                    recorder.write(Record(time.monotonic(), "gnmi", rpc, False, "", True, bytes(data)))
                    return response_deserializer(data)

                return make(rpc, request_serializer=asked, response_deserializer=told, **more)

            return tapped

    gnmi_pb2_grpc.gNMIStub = lambda channel: stub(Tapped(channel))


def records(path: Path) -> Iterator[Record]:
    """Read a file back; a record that a killed process did not finish is left out."""
    data = path.read_bytes()
    place = 0
    while place + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, place)
        place += _LENGTH.size
        if place + length > len(data):
            return
        yield msgspec.msgpack.decode(data[place : place + length], type=Record)
        place += length


def _peer(certificate: x509.Certificate) -> str:
    common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    return uris[0] if uris else str(common[0].value)
