"""`keyhaul serve`: what an operator's service manager runs on a node."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.argument("role")
@click.option(
    "--config", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The service's TOML file."
)
def serve(role: str, config: Path) -> None:
    """Run one service until SIGTERM or SIGINT.

    ROLE is one of the installed roles (aaa, akms, ckms, controller, qkdm, ukms). Logs go to standard error: lines for
    people on a terminal, JSON otherwise. On SIGHUP it reads its file again: a CKMS takes links that are new or gone,
    the simulated modules theirs; what needs a restart is logged, and a file with errors changes nothing.

    \b
    Exit codes:
      0   stopped as asked
      1   a part of the service failed; the log has it
      69  cannot start: an address in use, a missing certificate
      73  cannot create a file or socket
      74  the store is damaged
      75  the store is locked or cannot be opened
      78  the configuration has errors
    """
    from keyhaul.runtime.roles import UnknownRole, load_role

    try:
        found = load_role(role)
    except UnknownRole as error:
        raise click.UsageError(str(error.args[0])) from error
    from keyhaul.runtime.process import serve as serve_role

    sys.exit(int(serve_role(found, config)))
