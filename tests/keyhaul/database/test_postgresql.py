"""What only a server can do to a transaction: cancel its wait for the standby, crash, lose its client."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select, text

from keyhaul.database.database import Database
from keyhaul.database.errors import DatabaseUnavailable, OutcomeUnknown
from tests.keyhaul.database.tables import PURPOSE, things
from tests.postgresql import PostgreSQL, running

LONGEST = 30.0


@pytest.fixture
def database(postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(PURPOSE, postgresql.database(), tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def own_server(postgresql: PostgreSQL) -> Iterator[PostgreSQL]:
    """A server that the test may change and crash."""
    with running("fsync=on") as server:
        yield server


def add(connection: Connection) -> None:
    connection.execute(insert(things).values(name="n", kind="k", number=1))


def count(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(things)).scalar_one())


def poll(server: PostgreSQL, statement: str) -> list[tuple[object, ...]]:
    """Ask until there is an answer."""
    end = time.monotonic() + LONGEST
    while not (found := server.execute(statement)):
        assert time.monotonic() < end, statement
        time.sleep(0.01)
    return found


def test_a_commit_that_stopped_waiting_for_its_standby_is_no_success(own_server: PostgreSQL, tmp_path: Path) -> None:
    database = Database.open(PURPOSE, own_server.database(), tmp_path)
    own_server.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    own_server.execute("SELECT pg_reload_conf()")
    poll(own_server, "SELECT 1 FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting = 'nobody'")
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(database.transact, add)
        ((pid,),) = poll(own_server, "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        own_server.execute(f"SELECT pg_cancel_backend({pid})")
        with pytest.raises(OutcomeUnknown, match="perhaps not durably: canceling wait for synchronous replication"):
            waiting.result(LONGEST)
    assert database.transact(count) == 1, "a reader needs no standby, and the next transaction is not blamed"
    database.close()


def test_a_server_that_crashed_keeps_what_was_committed_and_is_used_again(
    own_server: PostgreSQL, tmp_path: Path
) -> None:
    database = Database.open(PURPOSE, own_server.database(), tmp_path)
    database.transact(add)
    own_server.stop(signal.SIGQUIT)
    with pytest.raises(DatabaseUnavailable):
        database.transact(count)
    own_server.start()
    assert database.transact(count) == 1
    database.close()


def test_a_connection_that_breaks_at_the_commit_leaves_the_outcome_unknown(
    database: Database, postgresql: PostgreSQL
) -> None:
    def work(connection: Connection) -> None:
        add(connection)
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        postgresql.execute(f"SELECT pg_terminate_backend({pid}, 10000)")

    with pytest.raises(OutcomeUnknown):
        database.transact(work)
    assert database.transact(count) == 0


def test_of_several_hosts_the_one_that_takes_writes_is_used(postgresql: PostgreSQL, tmp_path: Path) -> None:
    name = postgresql.database().partition("@/")[2].partition("?")[0]
    hosts = f"host=/nowhere:5432&host={postgresql.folder}:5432&target_session_attrs=read-write"
    url = f"postgresql+psycopg://{postgresql.user}@/{name}?{hosts}"
    database = Database.open(PURPOSE, url, tmp_path)
    database.transact(add)
    assert database.shared
    database.close()


FROZEN = """
import sys
from pathlib import Path
from sqlalchemy import insert
from keyhaul.database.database import Database
from tests.keyhaul.database.tables import PURPOSE, things

def work(connection):
    connection.execute(insert(things).values(name="n", kind="k", number=0))
    print("locked", flush=True)
    sys.stdin.read()

Database.open(PURPOSE, sys.argv[1], Path(".")).transact(work)
"""


def test_a_process_frozen_within_a_transaction_holds_its_locks_for_seconds_only(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    url = postgresql.database()
    database = Database.open(PURPOSE, url, tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", FROZEN, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as frozen:
        assert frozen.stdout is not None
        assert frozen.stdout.readline() == "locked\n"
        frozen.send_signal(signal.SIGSTOP)
        database.transact(add)  # the same key: it waits for the other's outcome
        frozen.kill()
    assert database.transact(lambda connection: connection.execute(select(things.c.number)).scalar_one()) == 1
    database.close()
