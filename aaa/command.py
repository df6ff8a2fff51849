"""`keyhaul aaa`: load and look at the directory of users, see usage, end rights.

While the service runs it is asked over its local socket; else the work is done on its database directly. Exit codes:
0 done, 1 refused, 2 wrong usage, 65 the import file has errors (nothing was changed), 69 the service or database
cannot be used, 78 the configuration has errors.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from keyhaul.command.output import Failed

REFUSED = 1
DATA = 65
UNAVAILABLE = 69
CONFIGURATION = 78

LARGEST_ASKED = 1_000_000
"""Bytes of arguments that go over the socket; a greater import works on the database beside the service."""

ASK_DEADLINE = 60.0
"""Seconds."""

SUBJECTS = (
    "customers",
    "contracts",
    "sites",
    "saes",
    "pairs",
    "communities",
    "usage",
    "batches",
    "grants",
    "revocations",
)

HEADS = {
    "service_class": "class",
    "default_size": "default",
    "minimum_size": "min",
    "maximum_size": "max",
    "maximum_keys_per_request": "keys/request",
    "rate": "keys/s",
    "issued_at": "issued",
    "ended_at": "ended",
    "akmss": "AKMSs",
}
"""Shorter heads of columns, so that a table fits on a terminal."""

Command = TypeVar("Command", bound=Callable[..., Any])

_CONFIG = click.Path(dir_okay=False, path_type=Path)


@click.group()
def aaa() -> None:
    """Customers, contracts, SAEs, grants and usage."""


def _common(command: Command) -> Command:
    command = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)
    return click.option("--config", required=True, type=_CONFIG, help="The AAA service's configuration file.")(command)


@aaa.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_common
def import_(file: Path, config: Path, as_json: bool) -> None:
    """Put FILE in force instead of what was imported before.

    FILE is TOML with customers, contracts, sites, SAEs and their peers, as `keyhaul network init` writes it. It is
    taken whole or not at all. What it does not name any more is revoked.
    """
    from aaa.import_file import parse
    from keyhaul.config.problems import ConfigurationError

    try:
        content = file.read_bytes()
        parse(content, file)
    except OSError as error:
        _fail(DATA, f"{file} cannot be read: {error.strerror or error}")
    except ConfigurationError as error:
        _fail(DATA, f"{error}\nNothing was changed.")
    done = _ask(config, "import", {"text": content.decode(), "name": str(file)})
    if as_json:
        click.echo(json.dumps(done))
        return
    for name, number in done["counts"].items():
        click.echo(f"{number:>8} {name} (before: {done['before'][name]})")
    if done["revocations"]:
        click.echo(f"{done['revocations']} masters lost rights; AKMSs learn it at their next poll.")
    if done["denials"]:
        click.echo(f"{done['denials']} rights stay revoked by hand: `keyhaul aaa restore` gives them back.")


@aaa.command()
@click.argument("what", required=False, metavar="[WHAT]", type=click.Choice(SUBJECTS))
@_common
def show(what: str | None, config: Path, as_json: bool) -> None:
    """Show WHAT, or how much there is of each.

    WHAT is one of customers, contracts, sites, saes, pairs, communities, usage, batches, grants, revocations. Of the
    last four the newest 1,000 are shown. Sizes are bits; a quota is keys a day and keys/s is the rate at
    each access node, both 0 for no limit; a burst is keys at once.
    """
    shown = _ask(config, "show", {"what": what})
    if as_json:
        click.echo(json.dumps(shown))
    elif not shown["rows"]:
        click.echo("Nothing is there.")
    else:
        _table(shown["rows"])


@aaa.command()
@click.argument("master")
@click.argument("slaves", nargs=-1, metavar="[SLAVE]...")
@_common
def revoke(master: str, slaves: tuple[str, ...], config: Path, as_json: bool) -> None:
    """End MASTER's rights to keys with the SLAVEs, or all of them, until `restore`."""
    done = _ask(config, "revoke", {"master": master, "slaves": list(slaves)})
    whom = ", ".join(slaves) or "anybody"
    _tell(as_json, done, f"{master} gets no more keys with {whom} (revocation {done['serial']}).")


@aaa.command()
@click.argument("master")
@click.argument("slaves", nargs=-1, metavar="[SLAVE]...")
@_common
def restore(master: str, slaves: tuple[str, ...], config: Path, as_json: bool) -> None:
    """Give back what `revoke` ended: MASTER's rights with the SLAVEs, or all."""
    done = _ask(config, "restore", {"master": master, "slaves": list(slaves)})
    _tell(as_json, done, f"{done['restored']} revoked rights of {master} are as the last import says again.")


def _ask(config_path: Path, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    from keyhaul.config.loader import load, resolve
    from keyhaul.config.problems import ConfigurationError
    from keyhaul.config.services import AaaConfig

    try:
        config = load(config_path, AaaConfig)
    except ConfigurationError as error:
        _fail(CONFIGURATION, str(error))
    place = resolve(config_path.parent, config.operations.socket)
    if _answers(place) and len(json.dumps(arguments)) <= LARGEST_ASKED:
        return _ask_service(place, command, arguments)
    return _work(config.database, config_path.parent, command, arguments)


def _answers(place: Path) -> bool:
    """Whether a service listens on the socket."""
    try:
        directory = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    except OSError as error:
        _fail(UNAVAILABLE, f"{place.parent}: {error.strerror or error}")
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        probe.settimeout(2.0)
        try:
            # A socket's address has at most 107 bytes; this way a long directory's name does not count.
            probe.connect(f"/proc/self/fd/{directory}/{place.name}")
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as error:
            _fail(UNAVAILABLE, f"{place} cannot be asked: {error.strerror or error}")
        finally:
            os.close(directory)
    return True


def _ask_service(place: Path, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    import asyncio

    from keyhaul.runtime.local import LocalRefusal, LocalUnreachable, ask

    try:
        return asyncio.run(ask(place, command, arguments, deadline=ASK_DEADLINE))
    except LocalRefusal as error:
        _fail(DATA if command == "import" and error.kind == "invalid" else REFUSED, str(error))
    except LocalUnreachable as error:
        _fail(UNAVAILABLE, str(error))


def _work(database: str, directory: Path, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    from aaa.administration import COMMANDS
    from aaa.database import open_database
    from keyhaul.database.errors import DatabaseUnavailable, DatabaseUnusable

    try:
        opened = open_database(database, directory)
    except DatabaseUnusable as error:
        _fail(UNAVAILABLE, str(error))
    try:
        return opened.transact(lambda connection: COMMANDS[command](connection, arguments, int(time.time())))
    except LookupError as error:
        _fail(REFUSED, str(error.args[0]))
    except DatabaseUnavailable as error:
        _fail(UNAVAILABLE, f"the database cannot be used: {error}")
    finally:
        opened.close()


def _table(rows: list[dict[str, Any]]) -> None:
    heads = list(rows[0])
    cells = [[_cell(row[head]) for head in heads] for row in rows]
    titles = [HEADS.get(head, head.replace("_", " ")) for head in heads]
    widths = [max(len(line[place]) for line in [titles, *cells]) for place in range(len(heads))]
    for line in [titles, *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ",".join(str(element) for element in value) or "-"
        case _:
            return str(value)


def _tell(as_json: bool, done: dict[str, Any], text: str) -> None:
    click.echo(json.dumps(done) if as_json else text)


def _fail(code: int, message: str) -> NoReturn:
    raise Failed(message, code)
