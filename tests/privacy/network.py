"""A tapped network of real processes: started, watched from all sides, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keyhaul.command.laboratory import probe
from keyhaul.runtime.local import LocalRefusal, LocalUnreachable, ask
from keyhaul.transport.etsi014 import Client014
from keyhaul.transport.tls import classic_client
from tests.privacy.evidence import SECRET_FILES, Evidence, Place, plain_rows, rows, store_key

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = Path(__file__).with_name("launch.py")
TOWN = Path(__file__).with_name("town.toml")

ALONE = "ckms-middlewich"
"""This service runs in a process of its own making, which never held anything but its configuration."""

CONTROLLER = "controller-cardington"

QUESTIONS = (
    *((*about, "--json") for about in (("topology", "links"), ("topology", "nodes"), ("topology", "disagreements"))),
    ("topology", "events", "--after", "0", "--json"),
    ("path", "list", "--json"),
    ("path", "explain", "abbeywood", "barnstaple", "--class", "silver", "--json"),
    ("whatif", "--node", "middlewich", "--json"),
)
"""What operators ask the controller: words of `keyhaul`."""

SO_RCVBUFFORCE = 33
"""socket(7): a buffer beyond the system's limit; who may listen may ask for it."""

SOL_PACKET, PACKET_STATISTICS = 263, 6
"""packet(7)."""

_READ_PROCESS = """
import ctypes, struct, sys
from pathlib import Path
libc = ctypes.CDLL(None, use_errno=True)
libc.capset(struct.pack("=Ii", 0x20080522, 0), bytes(24))
for name in ("environ", "maps", "mem", "fd/0"):
    try:
        with open(f"/proc/{sys.argv[1]}/{name}", "rb") as file:
            name == "mem" or file.read(1)
        print(name)
    except OSError:
        pass
"""


@dataclass(slots=True)
class Town:
    """The network of `town.toml`, running."""

    directory: Path
    taps: Path
    facts: dict[str, Any]
    evidence: Evidence
    wire: Wire
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    alone: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def client(self, sae: str) -> Client014:
        """A client that is this SAE."""
        entry = self.sae(sae)
        tls = classic_client(Path(entry["certificate"]), Path(entry["key"]), Path(entry["ca"]))
        return Client014(entry["ukms"], tls, expected_kme=None)

    def sae(self, name: str) -> dict[str, Any]:
        """An SAE of `network.json`."""
        found: dict[str, Any] = next(entry for entry in self.facts["saes"] if entry["id"] == name)
        return found

    def pid(self, service: str) -> int:
        """The process of a service."""
        if service in self.alone:
            return self.alone[service].pid
        return int(json.loads((self.directory / "run" / f"{service}.pid").read_text().split()[0]))

    @contextmanager
    def frozen(self, *services: str) -> Iterator[None]:
        """Stop processes for a while."""
        pids = [self.pid(service) for service in services]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def look(self) -> None:
        """Ask every service everything that it tells, look at its process, and copy its store."""
        services = self.facts["services"]
        for entry in services:
            for page in ("metrics", "health"):
                with suppress(urllib.error.HTTPError):
                    answer = urllib.request.urlopen(f"http://{entry['metrics']}/{page}", timeout=10).read()
                    self.evidence.places.append(Place(entry["id"], "page", page, answer))
        for service, command, answer in asyncio.run(_ask_all(services)):
            self.evidence.places.append(Place(service, "page", f"local {command}", answer))
        for question in QUESTIONS:
            done = _command(*question, "--network", self.directory)
            answer = (done.stdout + done.stderr).encode()
            self.evidence.places.append(Place(CONTROLLER, "page", f"northbound {' '.join(question)}", answer))
        for entry in services:
            self._look_at_process(entry["id"])
            self._copy_store(entry["id"], Path(entry["config"]))

    def suspect(self, node: str) -> None:
        """Put a carrier node in quarantine, and wait until an AKMS has burned what crossed it."""
        done = _command("node", "quarantine", node, "--reason", "a test", "--network", self.directory)
        done.check_returncode()
        _wait(self._has_burned, 30, lambda: done.stdout)

    def _has_burned(self) -> bool:
        akmss = [entry["metrics"] for entry in self.facts["services"] if entry["role"] == "akms"]
        pages = [urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read() for address in akmss]
        return any(b'cn_batches_total{outcome="exposed"}' in page for page in pages)

    def memory(self, service: str) -> bytes:
        """Everything writable in a process's memory: what a core image would hold.

        Raises:
            PermissionError: this user may not read it.
        """
        pid = self.pid(service)
        found = []
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
                if match and "[v" not in line:
                    start, end = (int(one, 16) for one in match.groups())
                    memory.seek(start)
                    with suppress(OSError):
                        found.append(memory.read(end - start).replace(bytes(256), b""))
        return b"\0".join(found)

    def _look_at_process(self, service: str) -> None:
        pid = self.pid(service)
        process = Path(f"/proc/{pid}")
        for name in ("cmdline", "environ"):
            with suppress(PermissionError):
                self.evidence.places.append(Place(service, "process", name, (process / name).read_bytes()))
        limits = (process / "limits").read_text()
        core = re.search(r"Max core file size +(\d+|unlimited) +(\d+|unlimited)", limits)
        assert core is not None
        self.evidence.facts[service] = {
            "core_limit": tuple(int(one) if one.isdigit() else -1 for one in core.groups()),
            "readable": readable_by_equals(pid),
        }

    def _copy_store(self, service: str, config: Path) -> None:
        key = store_key(config)
        modes = self.evidence.facts[service]["modes"] = {}
        for path in config.parent.rglob("*"):
            if path.is_file() and path.suffix != ".toml" and path.name not in SECRET_FILES and "db" not in path.name:
                self.evidence.places.append(Place(service, "file", path.name, path.read_bytes()))
            if path.name in SECRET_FILES or path.name.startswith("store.") or path.is_socket():
                modes[path.name] = path.stat().st_mode & 0o777
        copies = self.directory.parent / "copies" / service
        copies.mkdir(parents=True)
        with self.frozen(service):
            for path in config.parent.glob("*.db*"):
                shutil.copy(path, copies / path.name)
        for path in copies.iterdir():
            self.evidence.places.append(Place(service, "file", path.name, path.read_bytes()))
        for path in copies.glob("*.db-shm"):
            path.unlink()
        for path in copies.glob("*.db"):
            for table, row in plain_rows(path) if key is None else rows(path, key):
                self.evidence.places.append(Place(service, "row", table, row))


class Wire:
    """Everything that passes over the loopback interface between addresses of one range, from a raw socket."""

    def __init__(self, prefix: bytes) -> None:
        self.data = bytearray()
        self.available = True
        self.dropped = 0
        """Packets that passed while there was no room for them."""
        self._prefix = prefix
        self._stop = threading.Event()
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        except PermissionError:
            self.available = False
            return
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 27)
        self._socket.bind(("lo", 0))
        self._socket.settimeout(0.2)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        if self.available:
            self._stop.set()
            self._thread.join()
            _, self.dropped = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
            self._socket.close()

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                packet, address = self._socket.recvfrom(1 << 17)
            except TimeoutError:
                continue
            if address[2] == socket.PACKET_OUTGOING or packet[30:32] != self._prefix:
                continue
            header = 14 + 4 * (packet[14] & 15)
            source, target = (int.from_bytes(packet[header + at : header + at + 2], "big") for at in (0, 2))
            if packet[23] == socket.IPPROTO_TCP:
                if any(port // 10 == 944 for port in (source, target)):
                    continue  # metrics and health, which are pages of their own
                header += 4 * (packet[header + 12] >> 4)
            self.data += packet[header:] + b"\0"


def readable_by_equals(pid: int) -> list[str]:
    """What of a process a process of the same user can read that has no capabilities."""
    done = subprocess.run([sys.executable, "-c", _READ_PROCESS, str(pid)], capture_output=True, text=True, check=True)
    return done.stdout.split()


@contextmanager
def running(
    scratch: Path, *leaks: str, changes: Iterable[tuple[str, str]] = (), description: Path = TOWN
) -> Iterator[Town]:
    """Lay the town out, run it tapped, and stop it.

    Args:
        scratch: a short directory, that must not exist.
        leaks: of `leaks.LEAKS`, to be installed in every service.
        changes: regular expressions and replacements for all configuration files.
        description: of another town.
    """
    taps, directory = scratch / "t", scratch / "n"
    taps.mkdir(parents=True)
    third = os.getpid() % 254
    _command("network", "init", description, "--out", directory, "--loopback", f"127.213.{third}.0").check_returncode()
    for config in directory.glob("nodes/*/*/config.toml"):
        text = config.read_text().replace("[operations]\n", '[operations]\nlog_level = "debug"\n', 1)
        if config.parent.name == "ukms":
            text = "request_timeout = 2.0\n" + text
        for pattern, replacement in changes:
            text = re.sub(pattern, replacement, text)
        config.write_text(text)
    town = Town(
        directory,
        taps,
        json.loads((directory / "network.json").read_text()),
        Evidence(directory),
        Wire(bytes((127, 213))),
    )
    output = (scratch / "output").open("wb")
    launch = [sys.executable, str(LAUNCH), str(taps)]
    nodes = [node["name"] for node in town.facts["nodes"] if f"ckms-{node['name']}" != ALONE]
    alone = directory / "nodes" / ALONE.partition("-")[2]
    try:
        options = list(leaks)
        if not leaks and description == TOWN:
            options = [f"--node={node}" for node in nodes]
            (directory / "logs").mkdir(exist_ok=True, mode=0o700)
            for role in ("qkdm", "ckms"):
                service = f"{role}-{alone.name}"
                arguments = ["serve", role, str(alone / role / "config.toml")]
                with (directory / "logs" / f"{service}.log").open("wb") as file:
                    process = subprocess.Popen([*launch, *arguments], cwd=ROOT, stdout=file, stderr=file)
                town.processes.append(process)
                town.alone[service] = process
        arguments = ["network", str(directory), *options]
        process = subprocess.Popen([*launch, *arguments], cwd=ROOT, stdout=output, stderr=output)
        town.processes.append(process)
        _wait(lambda: _up(town), 180, lambda: (scratch / "output").read_text())
        yield town
    finally:
        for process in reversed(town.processes):
            process.terminate()
        for process in town.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        town.wire.close()
        output.close()


def _command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "keyhaul.command.main", *map(str, words)]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)


def collect(town: Town) -> Evidence:
    """After the end: everything that the run left behind."""
    evidence = town.evidence
    evidence.read_taps(town.taps)
    evidence.read_logs()
    if town.wire.available:
        assert not town.wire.dropped, f"{town.wire.dropped} packets were not heard"
        evidence.places.append(Place("wire", "wire", "loopback", bytes(town.wire.data)))
    return evidence


def _up(town: Town) -> bool:
    return not any(probe.missing(probe.health(entry["metrics"])) for entry in town.facts["services"])


def _wait(condition: Callable[[], bool], seconds: float, why: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"the network does not come up:\n{why()}")
        time.sleep(0.1)


async def _ask_all(services: list[dict[str, Any]]) -> list[tuple[str, str, bytes]]:
    found = []
    for entry in services:
        path = Path(entry["socket"])
        try:
            await ask(path, "which commands are there?")
        except LocalRefusal as refusal:
            found.append((entry["id"], "unknown command", str(refusal).encode()))
            commands = str(refusal).rpartition("it knows ")[2].split(", ")
        for command in commands:
            for arguments in ({}, {"link": "no-such-link", "id": "none", "sae": "none"}):
                if command in ("protect", "enable", "cut", "link") and not arguments:
                    continue
                try:
                    answer = json.dumps(await ask(path, command, arguments)).encode()
                except (LocalRefusal, LocalUnreachable) as refusal:
                    answer = str(refusal).encode()
                found.append((entry["id"], command, answer))
    return found
