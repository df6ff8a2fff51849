"""The command `keyhaul`. Subcommands register through the entry points `keyhaul.commands`, loaded when named.

Exit codes: 0 done, 1 failed, 2 wrong usage, 69 unreachable, 78 errors in a configuration file, 130 interrupted.
"""

from __future__ import annotations

import difflib
import os
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

INTERRUPTED = 130

SUMMARIES = {
    "aaa": "Load and show customers, contracts, sites and SAEs.",
    "demo": "Run a whole network with two encryptors and cut a link.",
    "link": "List, cut, restore and protect links.",
    "network": "Lay out and run a whole network on this machine.",
    "node": "Keep a node out of all paths.",
    "path": "Show paths, and why they are chosen.",
    "pki": "Make, sign, show and revoke certificates.",
    "sae": "Get keys as an SAE does (ETSI GS QKD 014).",
    "serve": "Run one service from its configuration file.",
    "store": "Look at and check a service's key store.",
    "top": "Watch the network.",
    "topology": "Show the network as the controller believes it to be.",
    "whatif": "Who is affected if links or nodes fail?",
}
"""So that `keyhaul --help` loads none of them."""


class InstalledCommands(click.Group):
    """A group whose commands are those that installed packages offer."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted(_points())

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Load a command."""
        point = _points().get(name)
        if point is None:
            return None
        command: click.Command = point.load()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or say which one may have been meant."""
        if args and not args[0].startswith("-") and args[0] not in _points():
            close = difflib.get_close_matches(args[0], _points(), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" There are {', '.join(sorted(_points()))}."
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading those whose summary is known."""
        rows = []
        for name in self.list_commands(ctx):
            summary = SUMMARIES.get(name)
            if summary is None:
                command = self.get_command(ctx, name)
                summary = command.get_short_help_str() if command is not None else ""
            rows.append((name, summary))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="keyhaul.commands")}


def _tell_version(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from keyhaul.runtime.version import suite_version

        click.echo(f"keyhaul {suite_version()}")
        ctx.exit()


@click.group(cls=InstalledCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_tell_version, help="Print the version."
)
def keyhaul() -> None:
    """Key management for quantum key distribution networks."""


def run(arguments: list[str]) -> int:
    """Run a command line, given without the program's name; return its exit code."""
    try:
        result: Any = keyhaul.main(arguments, prog_name="keyhaul", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough; what is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        click.echo(f"Error: {place}{error.strerror or error}", err=True)
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return result if isinstance(result, int) else 0


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
