"""A network's supervisor in the foreground, or as a process in the background that outlives the command."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable

from keyhaul.command.laboratory.files import Laboratory, NoNetwork, Selection

_READY = "\x06"
"""First character of the line by which the background process says that everything serves."""


def supervise(
    laboratory: Laboratory,
    selection: Selection,
    tell: Callable[[str], None],
    serving: Callable[[float], None],
    restart: bool,
    timeout: float,
) -> int:
    """Run services in this process's children until a signal; returns the exit code.

    Args:
        laboratory: the network.
        selection: the services to run.
        tell: takes lines for people.
        serving: called once, when everything serves, with the seconds it took.
        restart: start a service again that died.
        timeout: seconds until everything must serve.
    """
    from keyhaul.command.laboratory.supervisor import Supervisor

    supervisor = Supervisor(laboratory, selection, tell, restart=restart)
    try:
        supervisor.claim()
    except NoNetwork as error:
        tell(f"Error: {error}")
        return 1
    except OSError as error:
        tell(f"Error: {error.filename}: {error.strerror}; the network's directory must be writable")
        return 1
    return supervisor.run(timeout, serving)


def in_background(
    laboratory: Laboratory,
    selection: Selection,
    tell: Callable[[str], None],
    serving: Callable[[float], None],
    restart: bool,
    timeout: float,
) -> int:
    """As `supervise`, in a process of its own session; returns when everything serves, or does not come up."""
    receiving, sending = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        os._exit(_background(laboratory, selection, restart, timeout, sending))
    os.close(sending)
    try:
        with open(receiving, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith(_READY):
                    serving(float(line.removeprefix(_READY)))
                    return 0
                tell(line.rstrip("\n"))
    except KeyboardInterrupt:
        tell("Stopping what was started.")
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise
    return 1


def _background(laboratory: Laboratory, selection: Selection, restart: bool, timeout: float, sending: int) -> int:
    os.setsid()
    pipe = open(sending, "w", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed when everything serves
    try:
        laboratory.logs.mkdir(mode=0o700, exist_ok=True)
        log = os.open(laboratory.logs / "network.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        print(f"Error: {error.filename}: {error.strerror}; the network's directory must be writable", file=pipe)
        pipe.close()
        return 1
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    for descriptor in (log, nothing):
        os.close(descriptor)

    def tell(line: str) -> None:
        print(time.strftime("%FT%TZ", time.gmtime()), line, flush=True)
        if not pipe.closed:
            try:
                print(line, file=pipe, flush=True)
            except BrokenPipeError:
                hang_up()

    def hang_up() -> None:
        with contextlib.suppress(BrokenPipeError):  # what a reader who went away did not take
            pipe.close()

    def serving(seconds: float) -> None:
        print(time.strftime("%FT%TZ", time.gmtime()), f"everything serves after {seconds:.1f} s", flush=True)
        with contextlib.suppress(BrokenPipeError):
            print(f"{_READY}{seconds}", file=pipe, flush=True)
        hang_up()

    try:
        return supervise(laboratory, selection, tell, serving, restart, timeout)
    except BaseException as error:  # nobody above in this process: say it and end
        tell(f"the supervisor failed: {error!r}")
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
