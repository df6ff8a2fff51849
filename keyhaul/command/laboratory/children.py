"""Processes of a network's services, forked from one that has loaded their code."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from keyhaul.command.laboratory import processes
from keyhaul.command.laboratory.files import Laboratory, LaboratoryService
from keyhaul.command.laboratory.processes import LOOK_AGAIN, Process
from keyhaul.command.laboratory.title import set_title

WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, LOOK_AGAIN)
"""Signals that the parent waits for, and that mean to a child what they usually do."""

_PR_SET_PDEATHSIG = 1


def fork(laboratory: Laboratory, service: LaboratoryService, title: str, work: Callable[[], int]) -> Process:
    """Do work in a child that ends with this process, and whose output is the service's log.

    Raises:
        RuntimeError: this process has several threads.
    """
    if threading.active_count() != 1:
        raise RuntimeError("a process with several threads cannot be forked safely")
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(laboratory, service, title, work, parent)
    process = processes.of(pid)
    return process if process is not None else Process(pid, -1)


def _become(
    laboratory: Laboratory, service: LaboratoryService, title: str, work: Callable[[], int], parent: int
) -> NoReturn:
    """In the child: own session, own files, own title; then the work, then the end."""
    code = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() == parent:
            log = os.open(laboratory.log_file(service), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            for number in WATCHED:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            set_title(title)
            code = work()
    except BaseException as error:  # the child must never return into its parent's code
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
