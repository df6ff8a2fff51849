"""Delay lines in user space: connections between services pass them, and arrive later by the fibre's propagation.

`python -m bench.fibre` is a process of its own that copies bytes between sockets, each piece after its line's delay
(order kept, no loss, no limit of bandwidth). It needs no privilege and nothing of the product: configuration files say
at which address a neighbour is, and `stretch` puts a line's address there. One line of JSON on standard input lists the
lines; each further line, a number, multiplies their delays from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import heapq
import itertools
import json
import select
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from bench.network import ROOT, Network
from keyhaul.config.addresses import parse_address
from keyhaul.config.description import Description
from keyhaul.config.loader import load
from keyhaul.config.services import AkmsConfig, CkmsConfig, UkmsConfig

SECONDS_PER_KM = 5e-6
FIRST_PORT = 6000
_PR_SET_TIMERSLACK = 29


@dataclass(frozen=True, slots=True)
class Line:
    """One delay line: where it listens, where it leads, seconds one way."""

    listen: str
    target: str
    seconds: float


def stretch(network: Network, description: Description) -> list[Line]:
    """Have services of a laid-out network dial delay lines instead of each other.

    Links have their own lengths, connections between AKMSs the length of the carrier's shortest path. What is in one
    node, and AAA, whose place is not known, is reached without.
    """
    lengths = {link.id: link.km for link in description.link}
    carrier = description.carrier()
    lines: list[Line] = []

    def through(service: str, host: str, addresses: dict[str, float]) -> None:
        path = network.config(service)
        text = path.read_text()
        for address, km in addresses.items():
            line = Line(f"{host}:{FIRST_PORT + len(lines)}", address, km * SECONDS_PER_KM)
            text = text.replace(f'"{address}"', f'"{line.listen}"')
            lines.append(line)
        path.write_text(text)

    for entry in network.facts["services"]:
        service, role, node = entry["id"], entry["role"], entry["node"]
        host, _ = parse_address(entry["metrics"])
        if role == "ckms":
            links = load(network.config(service), CkmsConfig).link
            through(service, host, {link.address: lengths[link.id] for link in links if link.address is not None})
        elif role == "akms":
            peers = load(network.config(service), AkmsConfig).peer
            way = {peer.address: carrier.shortest(node, peer.service.partition("-")[2]) for peer in peers}
            through(service, host, {address: _length(description, path or ()) for address, path in way.items()})
        elif role == "ukms":
            config = load(network.config(service), UkmsConfig)
            through(service, host, {config.akms.address: lengths[config.link.id]})
    return lines


class Fibre:
    """The process with the lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def scale(self, factor: float) -> None:
        """Multiply all delays; 0: what the lines cost by themselves."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{factor}\n".encode())
        await self._process.stdin.drain()


@contextlib.asynccontextmanager
async def laid(lines: list[Line]) -> AsyncIterator[Fibre]:
    """Run the lines."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.fibre"), stdin=pipe, stdout=pipe, cwd=ROOT
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([(line.listen, line.target, line.seconds) for line in lines]).encode() + b"\n")
        await process.stdin.drain()
        await process.stdout.readline()
        yield Fibre(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def _length(description: Description, path: tuple[str, ...]) -> float:
    lengths = {link.hop: link.km for link in description.link}
    return sum(lengths[frozenset(pair)] for pair in itertools.pairwise(path))


class _End:
    """One socket of a line and what is on its way to it."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self.seconds = seconds
        self.other: _End | None = None
        self.waiting = bytearray()
        self.closing = False

    def fileno(self) -> int:
        return self.connection.fileno()


class _Lines:
    """Copies, later."""

    def __init__(self, lines: list[tuple[str, str, float]]) -> None:
        self._factor = 1.0
        self._ends: set[_End] = set()
        self._due: list[tuple[float, int, _End, bytes]] = []
        self._count = itertools.count()
        self._listening: dict[socket.socket, tuple[str, float]] = {}
        for listen, target, seconds in lines:
            self._listening[socket.create_server(parse_address(listen), backlog=64)] = target, seconds

    def run(self) -> None:
        """Copy until standard input ends."""
        commands = sys.stdin.fileno()
        while True:
            timeout = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            reading: list[int | socket.socket | _End] = [
                commands,
                *self._listening,
                *(end for end in self._ends if not end.closing),
            ]
            writing = [end for end in self._ends if end.waiting]
            readable, writable, _ = select.select(reading, writing, (), timeout)
            for found in readable:
                if isinstance(found, int):
                    line = sys.stdin.readline()
                    if not line:
                        return
                    self._factor = float(line)
                elif isinstance(found, socket.socket):
                    self._accept(found)
                else:
                    self._read(found)
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, end, data = heapq.heappop(self._due)
                end.waiting += data
                end.closing = end.closing or not data
                self._write(end)
            for end in writable:
                self._write(end)

    def _accept(self, listening: socket.socket) -> None:
        target, seconds = self._listening[listening]
        near, _ = listening.accept()
        try:
            far = socket.create_connection(parse_address(target), timeout=1.0)
        except OSError:
            near.close()
            return
        one, other = _End(near, seconds), _End(far, seconds)
        one.other, other.other = other, one
        self._ends |= {one, other}

    def _read(self, end: _End) -> None:
        try:
            data = end.connection.recv(262_144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            end.closing = True
        assert end.other is not None
        due = time.monotonic() + self._factor * end.seconds
        heapq.heappush(self._due, (due, next(self._count), end.other, data))
        if end.closing and not end.waiting:
            self._drop(end)

    def _write(self, end: _End) -> None:
        if end not in self._ends:
            return
        try:
            while end.waiting:
                del end.waiting[: end.connection.send(end.waiting)]
        except BlockingIOError:
            return
        except OSError:
            end.closing = True
            end.waiting.clear()
        if end.closing:
            self._drop(end)

    def _drop(self, end: _End) -> None:
        """A connection is at its end: close it; the other side hears of it after the delay."""
        if end in self._ends:
            self._ends.discard(end)
            end.connection.close()
            assert end.other is not None
            if end.other in self._ends and not end.other.closing:
                due = time.monotonic() + self._factor * end.seconds
                heapq.heappush(self._due, (due, next(self._count), end.other, b""))


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)  # nanoseconds: wake when due
    lines = _Lines(json.loads(sys.stdin.readline()))
    print("laid", flush=True)
    lines.run()


if __name__ == "__main__":
    main()
