"""A PostgreSQL server of a test's own, in a scratch folder, reached over a Unix socket; nothing of it is durable."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
LONGEST = 60.0
"""Seconds that starting or stopping may take on a busy machine."""


def missing() -> str | None:
    """What is lacking for a server to run here."""
    for tool in (PROGRAMS / "initdb", PROGRAMS / "postgres"):
        if not tool.exists():
            return f"needs {tool} (Debian package postgresql-15)"
    if shutil.which("setpriv") is None:
        return "needs setpriv (Debian package util-linux)"
    return None


def _as_server(*command: str | Path) -> list[str | Path]:
    """The command as a user who may run PostgreSQL (root may not), ended with the process that started it."""
    user = [] if os.geteuid() else ["--reuid=postgres", "--regid=postgres", "--init-groups"]
    return ["setpriv", *user, "--pdeathsig=INT", *command]


class PostgreSQL:
    """A server that runs."""

    def __init__(self, folder: Path, *settings: str) -> None:
        """Make a cluster in an empty folder of short name and start its server."""
        self.folder = folder
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        data = folder / "data"
        made = subprocess.run(
            _as_server(PROGRAMS / "initdb", "-D", data, "-A", "trust", "-U", self.user, "-E", "UTF8", "-N"),
            capture_output=True,
            text=True,
            timeout=LONGEST,
            cwd=folder,
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
        )
        assert made.returncode == 0, made.stderr
        given = ["listen_addresses=''", f"unix_socket_directories='{folder}'", "fsync=off", *settings]
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(f"{line}\n" for line in given)
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                _as_server(PROGRAMS / "postgres", "-D", self.folder / "data"),
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        ready = self.folder / "data" / "postmaster.pid"
        end = time.monotonic() + LONGEST
        while not (ready.exists() and ready.read_text().rstrip().endswith("ready")):
            assert self._server.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server, at once and in order; with SIGQUIT as a crash would."""
        self._server.send_signal(how)
        self._server.wait(LONGEST)

    def database(self) -> str:
        """Make an empty database; return its URL."""
        name = f"t{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://{self.user}@/{name}?host={self.folder}"

    def execute(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement by itself."""
        with (
            psycopg.connect(host=str(self.folder), user=self.user, dbname="postgres", autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def running(*settings: str) -> Iterator[PostgreSQL]:
    """A server with lines of postgresql.conf, and its end."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        server = PostgreSQL(folder, *settings)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
