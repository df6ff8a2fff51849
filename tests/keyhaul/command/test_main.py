"""The command line as a whole: help without loading anything, suggestions, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keyhaul.command.main import SUMMARIES, keyhaul, run
from keyhaul.runtime.roles import role_names

ROOT = Path(__file__).parents[3]
HEAVY = ("aiohttp", "sqlalchemy", "cryptography", "rich", "structlog", "uvloop", "h2", "OpenSSL")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["network", "--help"], ["store", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import json, sys; from keyhaul.command.main import run; code = run(sys.argv[1:]); "
        "print(json.dumps([code, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert [name for name in HEAVY if name in modules] == []


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(summary in text for name, summary in SUMMARIES.items() if name in keyhaul.list_commands(None))  # type: ignore[arg-type]


def test_a_misspelt_command_is_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["netwrok", "up"]) == 2
    assert "Did you mean 'network'?" in capsys.readouterr().err


def test_an_unknown_command_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["xyzzy"]) == 2
    assert "There are aaa," in capsys.readouterr().err


def test_an_unknown_role_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "router", "--config", "x"]) == 2
    text = capsys.readouterr().err
    assert all(role in text for role in role_names())


def test_a_configuration_that_is_missing_has_its_own_exit_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "keyhaul.command.main", "serve", "ckms", "--config", str(tmp_path / "none.toml")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 78
    assert "cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "keyhaul.command.main", "--help"],
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=ROOT,
        )
    assert done.returncode == 1
    assert done.stderr == ""


def test_an_interrupt_ends_a_command_quietly() -> None:
    program = (
        "import click, os, signal, keyhaul.command.main as m\n"
        "@m.keyhaul.command('wait')\n"
        "def wait(): os.kill(os.getpid(), signal.SIGINT)\n"
        "m._points = lambda: {'wait': type('P', (), {'load': staticmethod(lambda: wait)})}\n"
        "raise SystemExit(m.run(['wait']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.strip() == "interrupted"
