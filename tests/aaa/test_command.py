"""`keyhaul aaa` on the database of a stopped service, and over the socket of a running one."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aaa.command import aaa
from aaa.database import open_database
from keyhaul.runtime.local import LocalServer

CONFIG = """
database = "sqlite:///aaa.db"
grant_key = "grant-key.pem"
[service]
domain = "keyhaul.example"
role = "aaa"
node = "dc"
[identity]
certificate = "certificate.pem"
key = "key.pem"
trust = "trust.pem"
[listen]
address = "127.0.0.1:7445"
[operations]
metrics = "127.0.0.1:9445"
socket = "socket"
"""


@pytest.fixture
def place(bench: Any) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="aaa", dir="/tmp"))
    (directory / "config.toml").write_text(CONFIG)
    (directory / "aaa.toml").write_text(bench.text)
    yield directory
    shutil.rmtree(directory)


def run(place: Path, command: str, *arguments: str) -> Result:
    return CliRunner().invoke(aaa, [command, *arguments, "--config", str(place / "config.toml")])


def test_an_import_is_shown(place: Path) -> None:
    done = run(place, "import", str(place / "aaa.toml"))
    assert done.exit_code == 0
    assert "6 saes (before: 0)" in done.output

    shown = run(place, "show", "saes", "--json")
    assert [row["id"] for row in json.loads(shown.output)["rows"]][:2] == ["first-berlin-1", "first-bonn-1"]
    assert "first-bonn-1,first-bonn-2" in run(place, "show", "saes").output
    assert "customers" in run(place, "show").output
    assert run(place, "show", "usage").output == "Nothing is there.\n"


def test_a_wrong_file_changes_nothing(place: Path) -> None:
    run(place, "import", str(place / "aaa.toml"))
    (place / "wrong.toml").write_text((place / "aaa.toml").read_text().replace('"bronze"', '"tin"'))
    done = run(place, "import", str(place / "wrong.toml"))

    assert done.exit_code == 65
    assert "[contract 2] class" in done.output
    assert "Nothing was changed" in done.output
    assert len(json.loads(run(place, "show", "saes", "--json").output)["rows"]) == 6


def test_rights_are_revoked_and_restored(place: Path) -> None:
    run(place, "import", str(place / "aaa.toml"))
    assert "(revocation 1)" in run(place, "revoke", "first-berlin-1", "first-bonn-1").output
    assert "1 rights stay revoked by hand" in run(place, "import", str(place / "aaa.toml")).output
    assert run(place, "restore", "first-berlin-1").exit_code == 0

    nobody = run(place, "revoke", "nobody")
    assert (nobody.exit_code, nobody.output) == (1, 'Error: there is no SAE "nobody"\n')
    assert run(place, "restore", "nobody").exit_code == 1


def test_a_newer_database_is_left_alone(place: Path) -> None:
    database = open_database("sqlite:///aaa.db", place)
    database.transact(lambda connection: connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'x'"))
    database.close()
    done = run(place, "show")

    assert done.exit_code == 69
    assert "newer release" in done.output


def test_a_wrong_configuration_is_told(place: Path) -> None:
    (place / "config.toml").write_text(CONFIG.replace("sqlite:///aaa.db", "nothing"))

    assert run(place, "show").exit_code == 78


@pytest.fixture
def service(place: Path, bench: Any) -> Iterator[None]:
    """The bench's service answering on the socket, in a loop of its own."""
    loop = asyncio.new_event_loop()
    server = LocalServer(place / "socket")
    for name, answer in bench.runtime.commands.items():
        server.command(name, answer)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(5)
    yield
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


@pytest.mark.usefixtures("service")
def test_a_running_service_is_asked(place: Path, bench: Any) -> None:
    done = run(place, "import", str(place / "aaa.toml"))
    assert done.exit_code == 0, done.output
    assert "6 saes (before: 6)" in done.output
    assert "revocation 1" in run(place, "revoke", "first-berlin-1").output
    assert run(place, "revoke", "nobody").exit_code == 1
    rows = json.loads(run(place, "show", "revocations", "--json").output)["rows"]

    assert rows[0]["master"] == "first-berlin-1"
    assert not (place / "aaa.db").exists()


@pytest.mark.parametrize("text", [None, "", "x", "[service]\n"])
def test_a_useless_configuration_has_one_exit_code(place: Path, text: str | None) -> None:
    (place / "config.toml").unlink()
    if text is not None:
        (place / "config.toml").write_text(text)
    done = run(place, "show")

    assert done.exit_code == 78
    assert "config.toml" in done.output


def test_what_cannot_be_shown_is_wrong_usage(place: Path) -> None:
    done = run(place, "show", "banana")

    assert done.exit_code == 2
    assert "'WHAT'" in done.output.replace("'[WHAT]'", "'WHAT'")
    assert all(len(line) <= 100 for line in run(place, "show", "--help").output.splitlines())


def test_heads_are_words(place: Path) -> None:
    run(place, "import", str(place / "aaa.toml"))
    assert "keys/request" in run(place, "show", "contracts").output
    assert "may ask for" in run(place, "show", "saes").output
    assert max(map(len, run(place, "show", "contracts").output.splitlines())) <= 120
