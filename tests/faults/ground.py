"""A network whose services run each from `keyhaul serve`, as on real nodes, for a test to do with one what it likes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from keyhaul.command.laboratory import probe
from keyhaul.runtime.local import LocalSocketError, ask
from tests.laboratory import ROOT, Network, keyhaul
from tests.network.load import Way

START_ORDER = ("qkdm", "aaa", "controller", "ckms", "akms", "ukms")

CUSTOMERS = ("first", "second")
"""One of each class that crosses the carrier: silver under AEAD, gold under one-time pad."""

BACK = 120.0
"""Seconds after which a test gives up waiting, on however busy a machine. How long it took is shown and not judged:
what is promised is 10 s on an idle one."""


@dataclass(frozen=True)
class Circumstances:
    """Under what a service runs."""

    environment: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    tree: Path = ROOT
    """Whose code runs."""
    program: tuple[str, ...] = ("-m", "keyhaul.command.main")
    """What Python runs, with the words of `keyhaul serve` after it."""


class Ground:
    """One network, and the processes of its services."""

    def __init__(self, directory: Path) -> None:
        """Take over a directory that `keyhaul network init` made."""
        self.network = Network(directory, json.loads((directory / "network.json").read_text()))
        self.issued: set[str] = set()
        """IDs of all keys that masters ever got."""
        self.circumstances: dict[str, Circumstances] = {}
        """Of services that do not run plainly."""
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        (directory / "logs").mkdir(mode=0o700, exist_ok=True)

    @property
    def pairs(self) -> list[Way]:
        """An SAE at each of two sites, of each customer."""
        far = [(master.id, slave.id) for master, slave in self.network.pairs()]
        return [next(pair for pair in far if pair[0].startswith(customer)) for customer in CUSTOMERS]

    @property
    def services(self) -> list[str]:
        """In the order in which they start."""
        entries = sorted(self.network.facts["services"], key=lambda entry: START_ORDER.index(entry["role"]))
        return [entry["id"] for entry in entries]

    def directory(self, service: str) -> Path:
        """Where the service's configuration and store are."""
        return Path(self.network.service(service)["config"]).parent

    def log(self, service: str) -> Path:
        """Where the service logs, over all its starts."""
        return self.network.directory / "logs" / f"{service}.log"

    def pid(self, service: str) -> int:
        """The process of a service that runs."""
        return self._processes[service].pid

    def start(self, service: str) -> None:
        """Start a service under its circumstances; does not wait."""
        assert service not in self._processes, f"{service} runs already"
        entry = self.network.service(service)
        under = self.circumstances.get(service, Circumstances())
        # The parent's death signal: nothing survives a test run that is killed.
        command = ["setpriv", "--pdeathsig", "KILL", *under.prefix, sys.executable, *under.program]
        command += ["serve", entry["role"], "--config", entry["config"]]
        with self.log(service).open("ab") as log:
            self._processes[service] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=under.tree,
                env={**os.environ, **under.environment},
                start_new_session=True,
            )

    def start_rest(self) -> None:
        """Start what does not run: a test that was broken off may have left it so."""
        for service in self.services:
            if service not in self._processes:
                self.start(service)

    def code(self, service: str) -> int | None:
        """The exit code of a service that ended by itself; None while it runs."""
        return self._processes[service].poll()

    def ended(self, service: str) -> int | None:
        """The exit code of a service that ended by itself; None while it runs. One that ended may be started again."""
        code = self._processes[service].poll()
        if code is not None:
            del self._processes[service]
        return code

    def kill(self, service: str) -> None:
        """`kill -9`."""
        process = self._processes.pop(service)
        process.kill()
        process.wait(10)

    async def stop(self, service: str) -> None:
        """Stop a service as its service manager would."""
        process = self._processes.pop(service)
        process.terminate()
        code = await asyncio.to_thread(process.wait, 15)
        assert code == 0, f"{service} ended with {code}: {self.tail(service)}"

    async def restart(self, service: str, under: Circumstances | None = None) -> None:
        """Stop it, start it under other circumstances (none: plainly), wait until it serves fully."""
        await self.stop(service)
        self.put_under(service, under)
        self.start(service)
        await self.serving([service])

    def replace(self, service: str, under: Circumstances | None = None) -> None:
        """Kill it and start it under other circumstances (none: plainly); does not wait."""
        self.kill(service)
        self.put_under(service, under)
        self.start(service)

    def put_under(self, service: str, under: Circumstances | None) -> None:
        """Under what it runs from its next start on."""
        self.circumstances.pop(service, None)
        if under is not None:
            self.circumstances[service] = under

    def send(self, service: str, number: signal.Signals) -> None:
        """Send a signal to a service."""
        self._processes[service].send_signal(number)

    async def facts(self, service: str) -> dict[str, Any] | None:
        """What a service says of its health; None where it does not answer."""
        try:
            return await ask(Path(self.network.service(service)["socket"]), "status", deadline=2.0)
        except LocalSocketError:
            return None

    async def metric(self, service: str, name: str) -> float:
        """The sum of a service's samples of this name."""
        url = f"http://{self.network.service(service)['metrics']}/metrics"

        def read() -> str:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read(), "utf-8")

        families = text_string_to_metric_families(await asyncio.to_thread(read))
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)

    async def lacks(self, services: Iterable[str]) -> dict[str, str]:
        """What each of these services still lacks until it serves fully; nothing for those that do."""
        names = list(services)
        every = await asyncio.gather(*(self.facts(name) for name in names))
        found = {name: probe.missing(facts) for name, facts in zip(names, every, strict=True)}
        return {name: lack for name, lack in found.items() if lack}

    async def serving(self, services: Iterable[str] | None = None, timeout: float = BACK) -> float:
        """Wait until services (all) serve fully; return the seconds it took."""
        names = list(services or self.services)
        begun = time.monotonic()
        while lacks := await self.lacks(names):
            for name in lacks:
                process = self._processes.get(name)
                assert process is not None, f"{name} was not started"
                assert process.poll() is None, f"{name} ended with {process.returncode}: {self.tail(name)}"
            assert time.monotonic() < begun + timeout, f"after {timeout:g} s: {lacks}"
            await asyncio.sleep(0.05)
        return time.monotonic() - begun

    async def up(self) -> None:
        """Load the users and start everything."""
        config = self.network.service("aaa-dc")["config"]
        users = self.network.facts["subscribers"]
        tree = self.circumstances.get("aaa-dc", Circumstances()).tree
        await asyncio.to_thread(keyhaul, "aaa", "import", users, "--config", config, tree=tree)
        for service in self.services:
            self.start(service)
        await self.serving(timeout=BACK)

    def down(self) -> None:
        """Stop everything that runs."""
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        end = time.monotonic() + 10
        for process in self._processes.values():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def tail(self, service: str, lines: int = 8) -> str:
        """The end of a log."""
        return "\n".join(self.log(service).read_text(errors="replace").splitlines()[-lines:])

    def marks(self) -> dict[str, int]:
        """How long the logs are now."""
        logs = {service: self.log(service) for service in self.services}
        return {service: log.stat().st_size if log.exists() else 0 for service, log in logs.items()}

    def events(self, since: dict[str, int], services: Sequence[str] = ()) -> list[dict[str, Any]]:
        """What services (all) logged since `marks`."""
        found = []
        for service in services or self.services:
            with self.log(service).open("rb") as log:
                log.seek(since[service])
                for line in log:
                    if line.startswith(b"{") and line.endswith(b"\n"):
                        found.append(json.loads(line))
        return found

    def alarms(self, since: dict[str, int]) -> Counter[str]:
        """Alarms since `marks`, by name."""
        return Counter(event["alarm"] for event in self.events(since) if event["event"] == "alarm")

    @asynccontextmanager
    async def thawed(self, service: str) -> AsyncIterator[None]:
        """Whatever happens in the block: the service is not left frozen."""
        try:
            yield
        finally:
            self.send(service, signal.SIGCONT)

    @asynccontextmanager
    async def plainly(self, *services: str) -> AsyncIterator[None]:
        """Whatever happened in the block: afterwards these services run, plainly."""
        try:
            yield
        finally:
            for service in services:
                process = self._processes.pop(service, None)
                if process is not None:
                    process.send_signal(signal.SIGCONT)
                    process.terminate()
                    try:
                        await asyncio.to_thread(process.wait, 10)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()
                self.put_under(service, None)
                self.start(service)
            await self.serving()
