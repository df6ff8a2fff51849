"""What docs/operations.md says of commands and alarms is so."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

import click
import pytest

from keyhaul.command.main import keyhaul
from keyhaul.runtime.exits import Exit

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/operations.md").read_text()
BLOCKS = "\n".join(re.findall(r"^```\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))
LINES = [line for line in BLOCKS.splitlines() if line.startswith("keyhaul ")]


def test_there_are_commands() -> None:
    assert len(LINES) > 20


@pytest.mark.parametrize("line", LINES)
def test_a_command_and_its_options_exist(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = keyhaul
    context = click.Context(keyhaul)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None
        command = found
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
    needed = {parameter.opts[0] for parameter in command.params if parameter.required and parameter.opts[0][0] == "-"}
    assert needed <= set(words)


def test_the_unit_starts_and_reloads_as_the_command_line_has_it() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.read(ROOT / "deploy/systemd/keyhaul@.service")
    service = unit["Service"]
    program, *arguments = service["ExecStart"].replace("%i", "ckms").split()
    assert program.endswith("/keyhaul")
    context = click.Context(keyhaul)
    command = keyhaul.get_command(context, arguments.pop(0))
    assert command is not None
    assert command.make_context("serve", arguments).params["role"] == "ckms"
    assert service["ExecReload"].split()[1:] == ["-HUP", "$MAINPID"]
    assert {int(code) for code in service["RestartPreventExitStatus"].split()} == {Exit.DAMAGED, Exit.CONFIGURATION}


def test_every_alarm_is_explained_and_no_other() -> None:
    table = TEXT.partition("| alarm |")[2].partition("\n\n")[0]
    explained = {name for row in table.splitlines()[2:] for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])}
    raised = set()
    for folder in ("keyhaul", "services", "aaa", "controller"):
        for file in (ROOT / folder).rglob("*.py"):
            raised |= set(re.findall(r"alarm\(\s*\"([a-z-]+)\"", file.read_text()))
    from keyhaul.link.telemetry import _ALARMS

    assert explained == raised | set(_ALARMS.values())
