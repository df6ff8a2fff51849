"""Keeps the services of one network up: starts them, watches them, restarts them, stops them.

It loads the code of all roles once and forks a process for each service, before any thread or event loop exists: so a
network starts in seconds, and its processes share the memory of the code. Each service then runs exactly what
`keyhaul serve` runs. The supervisor itself has one thread and no event loop, and waits for signals only.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from keyhaul.command.laboratory import probe, processes
from keyhaul.command.laboratory.children import WATCHED, fork
from keyhaul.command.laboratory.files import Laboratory, LaboratoryService, NoNetwork, Selection
from keyhaul.command.laboratory.processes import LOOK_AGAIN, Process

STARTING_AT_ONCE = 4
"""Services between fork and the first answer of their health page."""

FIRST_OPERATOR_ERROR = 64
"""Exit codes from here on (sysexits.h) need somebody to mend something: a first start is not tried again."""

PROBE_EVERY = 0.25
FIRST_BACKOFF, LAST_BACKOFF = 0.5, 30.0
STEADY = 30.0
"""Seconds after which an earlier death is forgotten."""

PATIENCE = 5.0
"""Seconds from SIGTERM to SIGKILL."""


@dataclass(slots=True)
class _Kept:
    """One service that is kept up."""

    service: LaboratoryService
    process: Process | None = None
    begun: float = 0.0
    due: float = 0.0
    backoff: float = FIRST_BACKOFF
    probe_due: float = 0.0
    answered: bool = False
    missing: str = "not started"
    leaving: float | None = None
    """When it is killed, being gone from the network and told to stop."""


class Supervisor:
    """One network on this machine."""

    def __init__(
        self,
        laboratory: Laboratory,
        selection: Selection,
        tell: Callable[[str], None],
        *,
        restart: bool,
    ) -> None:
        """
        Args:
            laboratory: the network's directory.
            selection: the services to run.
            tell: takes lines for people.
            restart: start a service again that died.
        """
        self._laboratory = laboratory
        self._selection = selection
        services = selection.of(laboratory)
        self._kept = {service.id: _Kept(service) for service in services}
        self._tell = tell
        self._restart = restart
        self._whole = len(services) == len(laboratory.services)
        """Whether all services run, so that every link can come up."""
        self._lock = -1

    def claim(self) -> None:
        """Become the one supervisor of this network.

        Raises:
            NoNetwork: it is up already.
            OSError: its directory cannot be written to.
        """
        for directory in (self._laboratory.run, self._laboratory.logs):
            directory.mkdir(mode=0o700, exist_ok=True)
        self._lock = os.open(self._laboratory.run / "network.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise NoNetwork(
                f"the network in {self._laboratory.directory} is up already: `keyhaul network status` shows it, "
                "`keyhaul network down` stops it"
            ) from error
        signal.pthread_sigmask(signal.SIG_BLOCK, (LOOK_AGAIN,))
        own = processes.of(os.getpid())
        assert own is not None
        processes.write(self._laboratory.supervisor, own)

    def run(self, timeout: float, serving: Callable[[float], None]) -> int:
        """Bring the network up, keep it up until a signal, stop it.

        Args:
            timeout: seconds until everything must serve.
            serving: called once, with the seconds it took.

        Returns:
            0 after a stop that was asked for; 1 where the network did not come up, or lost a service for good.
        """
        former = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        try:
            return self._run(timeout, serving)
        finally:
            self._stop_all()
            self._laboratory.supervisor.unlink(missing_ok=True)
            signal.pthread_sigmask(signal.SIG_SETMASK, former)

    def _run(self, timeout: float, serving: Callable[[float], None]) -> int:
        begun = time.monotonic()
        self._preload()
        if not self._import_users():
            return 1
        up = False
        told = 0.0
        while True:
            now = time.monotonic()
            self._start_due(now)
            self._probe(now)
            if not up:
                if self._serves():
                    up = True
                    serving(now - begun)
                elif now - begun > timeout:
                    self._tell(f"After {timeout:g} s not everything serves:")
                    for kept in self._kept.values():
                        if kept.missing:
                            self._tell(f"  {kept.service.id}: {kept.missing}")
                    return 1
                elif now - told > 1.0:
                    told = now
                    self._tell(self._progress(now - begun))
            received = signal.sigtimedwait(WATCHED, 0.05 if not up else 0.5)
            if received is not None and received.si_signo == LOOK_AGAIN:
                self._look_again(time.monotonic())
            elif received is not None and received.si_signo != signal.SIGCHLD:
                return 0
            self._end_leaving(time.monotonic())
            if not self._reap(time.monotonic(), up):
                return 1

    def _preload(self) -> None:
        """Load the code that services share, and keep it out of the garbage collector's sight."""
        from keyhaul.runtime.process import serve
        from keyhaul.runtime.roles import load_role

        assert callable(serve)
        for role in {kept.service.role for kept in self._kept.values()}:
            load_role(role)
        gc.collect()
        gc.freeze()

    def _look_again(self, now: float) -> None:
        """The network has other services now: start what is new, and stop what is gone."""
        try:
            laboratory = Laboratory.read(self._laboratory.directory)
        except NoNetwork as error:
            self._tell(f"The network changed, and goes on as it was: {error}")
            return
        self._laboratory = laboratory
        wanted = {service.id: service for service in self._selection.of(laboratory)}
        for name, kept in tuple(self._kept.items()):
            if name in wanted or kept.leaving is not None:
                continue
            self._tell(f"{name} is gone from the network and stops")
            if kept.process is None:
                del self._kept[name]
            else:
                kept.leaving = now + PATIENCE
                kept.process.send(signal.SIGTERM)
        for name, service in wanted.items():
            if name not in self._kept:
                self._tell(f"{name} is new in the network and starts")
                self._kept[name] = _Kept(service)

    def _end_leaving(self, now: float) -> None:
        for name, kept in self._kept.items():
            if kept.leaving is not None and kept.leaving <= now and kept.process is not None:
                self._tell(f"{name} did not stop within {PATIENCE:g} s and is killed")
                kept.process.send(signal.SIGKILL)

    def _import_users(self) -> bool:
        """Load the laboratory's users into AAA before it starts."""
        users = self._laboratory.directory / "aaa.toml"
        service = next((kept.service for kept in self._kept.values() if kept.service.role == "aaa"), None)
        if service is None or not users.exists():
            return True

        def work() -> int:
            from keyhaul.command.main import run

            return run(["aaa", "import", str(users), "--config", str(service.config)])

        process = fork(self._laboratory, service, "keyhaul aaa import", work)
        _, status = os.waitpid(process.pid, 0)
        if status != 0:
            self._tell(f"{users} was not imported; the log says:")
            self._tell_log(service)
        return status == 0

    def _start_due(self, now: float) -> None:
        starting = sum(kept.process is not None and not kept.answered for kept in self._kept.values())
        for kept in self._kept.values():
            if kept.process is None and kept.due <= now and starting < STARTING_AT_ONCE:
                self._start(kept, now)
                starting += 1

    def _start(self, kept: _Kept, now: float) -> None:
        service = kept.service

        def work() -> int:
            from keyhaul.runtime.process import serve
            from keyhaul.runtime.roles import load_role

            return int(serve(load_role(service.role), service.config))

        kept.process = fork(self._laboratory, service, f"keyhaul serve {service.id}", work)
        kept.begun, kept.answered, kept.probe_due, kept.missing = now, False, now + 0.1, "does not answer"
        processes.write(self._laboratory.pid_file(service), kept.process)

    def _probe(self, now: float) -> None:
        for kept in self._kept.values():
            if kept.process is None or not kept.missing or kept.probe_due > now:
                continue
            facts = probe.health(kept.service.metrics)
            kept.answered = kept.answered or facts is not None
            kept.missing = probe.missing(facts)
            if not self._whole and facts is not None and facts.get("ready"):
                kept.missing = ""
            kept.probe_due = time.monotonic() + PROBE_EVERY

    def _serves(self) -> bool:
        """Whether everything serves: when it seems so, all are asked once more."""
        if any(kept.process is None or kept.missing for kept in self._kept.values()):
            return False
        for kept in self._kept.values():
            facts = probe.health(kept.service.metrics)
            kept.missing = probe.missing(facts) if self._whole or facts is None else ""
        return not any(kept.missing for kept in self._kept.values())

    def _progress(self, seconds: float) -> str:
        started = sum(kept.process is not None for kept in self._kept.values())
        serve = sum(not kept.missing for kept in self._kept.values())
        return f"{seconds:5.1f} s: {started} of {len(self._kept)} services started, {serve} serve fully"

    def _reap(self, now: float, up: bool) -> bool:
        """Look after services that ended; False where one is lost for good."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return True
            kept = next((kept for kept in self._kept.values() if kept.process and kept.process.pid == pid), None)
            if kept is None:
                continue
            kept.process, kept.missing = None, "died"
            self._laboratory.pid_file(kept.service).unlink(missing_ok=True)
            if kept.leaving is not None:
                del self._kept[kept.service.id]
                self._look_again(now)  # it may be there again by now
                continue
            self._tell(f"{kept.service.id} {_ending(status)}; its log ends:")
            self._tell_log(kept.service)
            if not self._restart or (not up and os.waitstatus_to_exitcode(status) >= FIRST_OPERATOR_ERROR):
                return False
            if now - kept.begun > STEADY:
                kept.backoff = FIRST_BACKOFF
            kept.due = now + kept.backoff
            self._tell(f"{kept.service.id} is started again in {kept.backoff:g} s")
            kept.backoff = min(2 * kept.backoff, LAST_BACKOFF)

    def _tell_log(self, service: LaboratoryService, lines: int = 5) -> None:
        with suppress(OSError), self._laboratory.log_file(service).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
            for line in file.read().decode(errors="replace").splitlines()[-lines:]:
                self._tell(f"  {line}")

    def _stop_all(self) -> None:
        running = {kept.service.id: kept.process for kept in self._kept.values() if kept.process is not None}
        begun = time.monotonic()
        for process in running.values():
            process.send(signal.SIGTERM)
        while any(process.alive for process in running.values()) and time.monotonic() < begun + PATIENCE:
            signal.sigtimedwait((signal.SIGCHLD,), 0.1)
            self._collect()
        for name, process in running.items():
            if process.alive:
                self._tell(f"{name} did not stop within {PATIENCE:g} s and is killed")
                process.send(signal.SIGKILL)
        for kept in self._kept.values():
            self._laboratory.pid_file(kept.service).unlink(missing_ok=True)
        if running:
            self._tell(f"{len(running)} services stopped in {time.monotonic() - begun:.1f} s")

    @staticmethod
    def _collect() -> None:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"
