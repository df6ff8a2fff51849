"""`keyhaul network`: lay a whole network out, run it on this machine, stop it, look at it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from keyhaul.command.laboratory import processes
from keyhaul.command.laboratory.files import Laboratory, LaboratoryService, NoNetwork
from keyhaul.command.output import ConfigurationRefused, json_option, print_json, print_table, size, wait_for

STOP_PATIENCE = 12.0
"""Seconds that the supervisor has to stop its services."""

_READY = "\x06"
"""First character of the line by which the background process says that everything serves."""

directory_argument = click.argument("directory", type=click.Path(file_okay=False, path_type=Path))


@click.group()
def network() -> None:
    """Lay out and run a whole network on this machine."""


@network.command()
@click.argument("description", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory to make.")
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
        initialise(description, out, loopback=loopback, force=force)
    except ConfigurationError as error:
        raise ConfigurationRefused(str(error)) from error
    except LayoutError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or out}: {error.strerror}") from error
    laboratory = Laboratory.read(out)
    if as_json:
        print_json({"directory": str(laboratory.directory), "services": len(laboratory.services)})
        return
    click.echo(f"{laboratory.name}: {len(laboratory.services)} services in {laboratory.directory}")
    click.echo(f"Run it: keyhaul network up {out}")


@network.command()
@directory_argument
@click.option("--detach", is_flag=True, help="Return when everything serves; the network stays up.")
@click.option("--restart/--no-restart", default=True, show_default=True, help="Start a service again that died.")
@click.option("--timeout", default=120.0, show_default=True, help="Seconds until everything must serve.")
@click.option("--role", "roles", multiple=True, help="Only services of this role (repeatable).")
@click.option("--node", "nodes", multiple=True, help="Only services of this node (repeatable).")
def up(
    directory: Path, detach: bool, restart: bool, timeout: float, roles: tuple[str, ...], nodes: tuple[str, ...]
) -> None:
    """Run the network in DIRECTORY, in the foreground until interrupted.

    Logs are in DIRECTORY/logs, one file a service.
    """
    laboratory = _read(directory)
    chosen = tuple(
        service
        for service in laboratory.services
        if (not roles or service.role in roles) and (not nodes or service.node in nodes)
    )
    if not chosen:
        raise click.UsageError("no service of the network has that role and node")
    if detach:
        sys.exit(_in_background(laboratory, chosen, restart, timeout))

    def serving(seconds: float) -> None:
        click.echo(f"Everything serves after {seconds:.1f} s ({len(chosen)} services). Ctrl-C stops it.")

    sys.exit(_supervise(laboratory, chosen, click.echo, serving, restart, timeout))


@network.command()
@directory_argument
def down(directory: Path) -> None:
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
    if supervisor is None and not running:
        click.echo("The network was not up.")
    else:
        click.echo(f"The network is down after {time.monotonic() - began:.1f} s.")


@network.command()
@directory_argument
@json_option
def status(directory: Path, as_json: bool) -> None:
    """Show what runs of the network in DIRECTORY. Exit code 1: it is not up."""
    laboratory = _read(directory)
    supervisor = processes.read(laboratory.supervisor)
    rows = wait_for(_ask_all(laboratory))
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
    if not any(row.pid for row in rows):
        sys.exit(1)


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceState:
    """What `status` tells of one service; memory in bytes."""

    id: str
    role: str
    node: str
    pid: int | None
    state: str
    memory: int | None
    links_up: int
    links: int
    alarms: dict[str, int]
    log: str


async def _ask_all(laboratory: Laboratory) -> list[ServiceState]:
    return list(await asyncio.gather(*(_ask_one(laboratory, service) for service in laboratory.services)))


async def _ask_one(laboratory: Laboratory, service: LaboratoryService) -> ServiceState:
    from keyhaul.command.laboratory import probe
    from keyhaul.runtime.local import LocalSocketError, ask

    process = processes.read(laboratory.pid_file(service))
    facts: dict[str, Any] = {}
    if process is None:
        state = "stopped"
    else:
        try:
            facts = await ask(service.socket, "status", deadline=5.0)
            state = probe.missing(facts) or "serving"
        except LocalSocketError:
            state = "does not answer"
    links_up, links = probe.links(facts)
    return ServiceState(
        id=service.id,
        role=service.role,
        node=service.node,
        pid=process.pid if process else None,
        state=state,
        memory=process.memory() if process else None,
        links_up=links_up,
        links=links,
        alarms=facts.get("alarms", {}),
        log=str(laboratory.log_file(service)),
    )


def _supervise(
    laboratory: Laboratory,
    chosen: tuple[LaboratoryService, ...],
    tell: Callable[[str], None],
    serving: Callable[[float], None],
    restart: bool,
    timeout: float,
) -> int:
    from keyhaul.command.laboratory.supervisor import Supervisor

    supervisor = Supervisor(laboratory, chosen, tell, restart=restart, whole=len(chosen) == len(laboratory.services))
    try:
        supervisor.claim()
    except NoNetwork as error:
        tell(str(error))
        return 1
    return supervisor.run(timeout, serving)


def _in_background(laboratory: Laboratory, chosen: tuple[LaboratoryService, ...], restart: bool, timeout: float) -> int:
    """Fork a supervisor into a session of its own; pass on what it tells until everything serves."""
    receiving, sending = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        os._exit(_background(laboratory, chosen, restart, timeout, sending))
    os.close(sending)
    with open(receiving, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(_READY):
                click.echo(line.removeprefix(_READY).rstrip("\n"))
                return 0
            click.echo(line.rstrip("\n"), err=True)
    return 1


def _background(
    laboratory: Laboratory, chosen: tuple[LaboratoryService, ...], restart: bool, timeout: float, sending: int
) -> int:
    os.setsid()
    pipe = open(sending, "w", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed when everything serves
    laboratory.logs.mkdir(mode=0o700, exist_ok=True)
    log = os.open(laboratory.logs / "network.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    for descriptor in (log, nothing):
        os.close(descriptor)

    def tell(line: str) -> None:
        print(time.strftime("%FT%TZ", time.gmtime()), line, flush=True)
        if not pipe.closed:
            try:
                print(line, file=pipe, flush=True)
            except BrokenPipeError:
                pipe.close()

    def serving(seconds: float) -> None:
        tell(f"{_READY}Everything serves after {seconds:.1f} s ({len(chosen)} services).")
        pipe.close()

    try:
        return _supervise(laboratory, chosen, tell, serving, restart, timeout)
    except BaseException as error:  # nobody above in this process: say it and end
        tell(f"the supervisor failed: {error!r}")
        sys.excepthook(type(error), error, error.__traceback__)
        return 1


def _read(directory: Path) -> Laboratory:
    try:
        return Laboratory.read(directory)
    except NoNetwork as error:
        raise click.ClickException(str(error)) from error
