"""`keyhaul top`: a live view of the network in the terminal."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import click

from controller.command.places import controller_options, places
from keyhaul.command.output import Number


@click.command()
@click.option(
    "--every", type=Number(0.2, 3_600.0), default=1.0, show_default=True, help="Seconds from one look to the next."
)
@click.option("--once", is_flag=True, help="Print one look and end.")
@controller_options
def top(
    every: float, once: bool, directory: Path | None, controllers: tuple[str, ...], identity: Path | None, as_json: bool
) -> None:
    """Watch the network: links with what is wrong first, demands with their paths, what happens. Ctrl-C ends it.

    With --json, one document a look.
    """
    from controller.command.connecting import ask
    from controller.command.watching import watch

    where = places(directory, controllers, identity)
    with contextlib.suppress(KeyboardInterrupt):
        ask(where, lambda session: watch(session, every, once, as_json, time.time))
