"""`keyhaul network`: lay a whole network out, run it on this machine, stop it, look at it."""

from __future__ import annotations

import dataclasses
import socket
import sys
import time
from pathlib import Path

import click

from keyhaul.command.apply import apply
from keyhaul.command.laboratory import processes
from keyhaul.command.laboratory.background import in_background, supervise
from keyhaul.command.laboratory.files import Laboratory, LaboratoryService, NoNetwork, Selection
from keyhaul.command.laboratory.state import look
from keyhaul.command.output import ConfigurationRefused, Number, json_option, print_json, print_table, size, wait_for
from keyhaul.config.addresses import parse_address

STOP_PATIENCE = 12.0
"""Seconds that the supervisor has to stop its services."""


def _named(_context: click.Context, _parameter: click.Parameter, value: Path) -> Path:
    """An empty path would be the present directory."""
    if value == Path():
        raise click.BadParameter("name a directory, not the present one")
    return value


directory_argument = click.argument("directory", type=click.Path(file_okay=False, path_type=Path))


@click.group()
def network() -> None:
    """Lay out and run a whole network on this machine."""


network.add_command(apply)


@network.command()
@click.argument("description", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), callback=_named, help="Directory to make.")
@click.option("--loopback", help="Base of the loopback addresses, e.g. 127.20.0.0, instead of the description's.")
@click.option("--force", is_flag=True, help="Replace a network laid out there before, its stores included.")
@json_option
def init(description: Path, out: Path, loopback: str | None, force: bool, as_json: bool) -> None:
    """Make a laboratory's keys, certificates and configuration files from DESCRIPTION."""
    from keyhaul.command.init import LayoutError, initialise
    from keyhaul.config.problems import ConfigurationError

    if force and processes.read(out.absolute() / "run" / "network.pid") is not None:
        raise click.ClickException(f"the network in {out} is up: stop it first by `keyhaul network down {out}`")
    try:
        warned = initialise(description, out, loopback=loopback, force=force)
    except ConfigurationError as error:
        raise ConfigurationRefused(str(error)) from error
    except LayoutError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(
            f"{out} cannot be made: {error.strerror}; choose a directory that you may write to"
        ) from error
    laboratory = Laboratory.read(out)
    if as_json:
        print_json({"directory": str(laboratory.directory), "services": len(laboratory.services), "warnings": warned})
        return
    for warning in warned:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(f"{laboratory.name}: {len(laboratory.services)} services in {laboratory.directory}")
    click.echo(f"Run it: keyhaul network up {out}")


@network.command()
@click.argument("description", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write; without it, print the plan."
)
@click.option("--loopback", help="Base of the loopback addresses, as `init` was given it.")
@json_option
def plan(description: Path, out: Path | None, loopback: str | None, as_json: bool) -> None:
    """Tell controllers of a changed DESCRIPTION: what they have to know of its CKMSs and links.

    The plan names no site, customer or SAE.
    """
    from keyhaul.command.init import read_description
    from keyhaul.config.carrier import encode
    from keyhaul.config.controllers import carrier_plan
    from keyhaul.config.problems import ConfigurationError
    from keyhaul.identity import secretfile

    try:
        found = carrier_plan(read_description(description, loopback))
    except ConfigurationError as error:
        raise ConfigurationRefused(str(error)) from error
    if out is None:
        click.echo(encode(found).decode(), nl=False)
        return
    try:
        secretfile.write(out, encode(found))
    except OSError as error:
        raise click.ClickException(
            f"{out} cannot be written: {error.strerror}; choose a file in a directory that you may write to"
        ) from error
    if as_json:
        print_json({"plan": str(out), "nodes": len(found.nodes), "links": len(found.links)})
        return
    click.echo(f"{found.network}: {len(found.nodes)} CKMSs and {len(found.links)} links in {out}")
    click.echo("Next: put it in place of each controller's `plan`; a running controller takes it up by itself.")


@network.command()
@directory_argument
@click.option("--detach", is_flag=True, help="Return when everything serves; the network stays up.")
@click.option("--restart/--no-restart", default=True, show_default=True, help="Start a service again that died.")
@click.option(
    "--timeout",
    type=Number(1.0, 86_400.0),
    default=120.0,
    show_default=True,
    help="Seconds until everything must serve.",
)
@click.option("--role", "roles", multiple=True, help="Only services of this role (repeatable).")
@click.option("--node", "nodes", multiple=True, help="Only services of this node (repeatable).")
@json_option
def up(
    directory: Path,
    detach: bool,
    restart: bool,
    timeout: float,
    roles: tuple[str, ...],
    nodes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run the network in DIRECTORY, in the foreground until interrupted.

    Logs are in DIRECTORY/logs, one file a service. Progress goes to standard error.
    """
    laboratory = _read(directory)
    _check_filters(laboratory, roles, nodes)
    selection = Selection(roles, nodes)
    chosen = selection.of(laboratory)
    if not chosen:
        raise click.UsageError("no service of the network has both that role and that node")
    _check_free(laboratory, chosen)

    def serving(seconds: float) -> None:
        if as_json:
            facts = {"directory": str(laboratory.directory), "services": len(chosen), "seconds": round(seconds, 3)}
            print_json(facts)
        else:
            stop = f"`keyhaul network down {directory}`" if detach else "Ctrl-C"
            click.echo(f"Everything serves after {seconds:.1f} s ({len(chosen)} services). {stop} stops it.")
        sys.stdout.flush()

    if detach:
        sys.exit(in_background(laboratory, selection, _tell_error, serving, restart, timeout))
    sys.exit(supervise(laboratory, selection, _tell_error, serving, restart, timeout))


@network.command()
@directory_argument
@json_option
def down(directory: Path, as_json: bool) -> None:
    """Stop the network in DIRECTORY."""
    laboratory = _read(directory)
    supervisor = processes.read(laboratory.supervisor)
    began = time.monotonic()
    if supervisor is not None:
        for process in processes.stop([supervisor], STOP_PATIENCE):
            click.echo(f"its supervisor (pid {process.pid}) did not stop and was killed", err=True)
    left = {service.id: processes.read(laboratory.pid_file(service)) for service in laboratory.services}
    running = {name: process for name, process in left.items() if process is not None}
    for process in processes.stop(running.values(), 5.0):
        name = next(name for name, one in running.items() if one == process)
        click.echo(f"{name} did not stop within 5 s and was killed", err=True)
    was_up, seconds = supervisor is not None or bool(running), time.monotonic() - began
    if as_json:
        print_json({"directory": str(laboratory.directory), "was_up": was_up, "seconds": round(seconds, 3)})
    elif was_up:
        click.echo(f"The network is down after {seconds:.1f} s.")
    else:
        click.echo("The network was not up.")


@network.command()
@directory_argument
@json_option
def status(directory: Path, as_json: bool) -> None:
    """Show what runs of the network in DIRECTORY. Exit code 1: it is not up."""
    laboratory = _read(directory)
    supervisor = processes.read(laboratory.supervisor)
    rows = wait_for(look(laboratory))
    if as_json:
        print_json(
            {
                "name": laboratory.name,
                "directory": str(laboratory.directory),
                "supervisor": supervisor.pid if supervisor else None,
                "services": [dataclasses.asdict(row) for row in rows],
            }
        )
    else:
        print_table(
            ("service", "pid", "state", "memory", "links", "alarms"),
            [
                (
                    row.id,
                    str(row.pid or "-"),
                    row.state,
                    size(row.memory),
                    f"{row.links_up}/{row.links}" if row.links else "-",
                    ", ".join(f"{name} {count}" for name, count in sorted(row.alarms.items())) or "-",
                )
                for row in rows
            ],
            title=laboratory.name,
        )
        total = sum(row.memory or 0 for row in rows)
        serving = sum(row.state == "serving" for row in rows)
        click.echo(f"{serving} of {len(rows)} services serve fully, {size(total)} in all")
        for row in rows:
            if row.restart:
                click.echo(f"{row.id} needs a restart for what its configuration says of {', '.join(row.restart)}")
            if row.refused:
                click.echo(f"{row.id} goes on with its former configuration: {row.refused}")
    if not any(row.pid for row in rows):
        sys.exit(1)


def _tell_error(line: str) -> None:
    click.echo(line, err=True)


def _check_filters(laboratory: Laboratory, roles: tuple[str, ...], nodes: tuple[str, ...]) -> None:
    for what, asked, there in (
        ("role", roles, dict.fromkeys(service.role for service in laboratory.services)),
        ("node", nodes, dict.fromkeys(service.node for service in laboratory.services)),
    ):
        if strange := [name for name in asked if name not in there]:
            raise click.UsageError(f"the network has no {what} {', '.join(strange)}; it has {', '.join(there)}")


def _check_free(laboratory: Laboratory, chosen: tuple[LaboratoryService, ...]) -> None:
    """Find out before anything starts that another network uses the same addresses."""
    if processes.read(laboratory.supervisor) is not None:
        return  # it is up itself, which is told better where it is claimed
    taken = [service.metrics for service in chosen if _taken(service.metrics)]
    if taken:
        others = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise click.ClickException(
            f"{taken[0]}{others} cannot be listened on: another network has these addresses, or this machine has not "
            "got them. Stop the other one, or lay this one out again with --loopback"
        )


def _taken(address: str) -> bool:
    host, port = parse_address(address)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _read(directory: Path) -> Laboratory:
    try:
        return Laboratory.read(directory)
    except NoNetwork as error:
        raise click.ClickException(str(error)) from error
