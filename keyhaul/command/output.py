"""What commands print: one JSON document, or a table for people. And how they fail."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

Result = TypeVar("Result")
Command = TypeVar("Command", bound=Callable[..., Any])

json_option: Callable[[Command], Command] = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


WIDEST = 400
"""Characters of a table's line where no terminal cuts it."""


UNREACHABLE = 69
"""Exit code where a service does not answer (EX_UNAVAILABLE)."""


class Failed(click.ClickException):
    """A command failed, with an exit code of its own."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc] # click means a class each


class ConfigurationRefused(click.ClickException):
    """A configuration file has errors, all of them in the message."""

    exit_code = 78


class Number(click.FloatRange):
    """A number of a range; unlike those of click's own type, never NaN, which every comparison lets pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or fail as click does."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is no number", param, ctx)
        return number


def print_json(document: Any) -> None:
    """Print a document for programs."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table for people. On a narrow terminal cells are folded; nothing of them is left out."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = WIDEST
    console.print(table)


def size(count: int | None) -> str:
    """A number of bytes for people, in few digits."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.1f} {unit}" if value < 9.95 and unit != "B" else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def wait_for(work: Coroutine[Any, Any, Result]) -> Result:
    """Run asynchronous work of a command to its end."""
    return asyncio.run(work)


def operations_of(config: Path) -> tuple[str, str, Path]:
    """Role, service id and local socket of a service, from its configuration file.

    Only these fields are checked: a command that looks at a service works with a file of any role.

    Raises:
        ConfigurationRefused: the file cannot be read or lacks them.
    """
    import tomllib

    try:
        with config.open("rb") as file:
            tables = tomllib.load(file)
        service = tables["service"]
        role, node, socket = str(service["role"]), str(service["node"]), str(tables["operations"]["socket"])
    except OSError as error:
        raise ConfigurationRefused(f"{config}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationRefused(f"{config}: is not TOML: {error}") from error
    except (KeyError, TypeError) as error:
        raise ConfigurationRefused(f"{config}: [service] role and node and [operations] socket are needed") from error
    return role, f"{role}-{node}", config.absolute().parent / socket
