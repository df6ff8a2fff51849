"""`keyhaul link`: links as their KMSs see them, and commands to simulated modules."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from keyhaul.command.laboratory.files import Laboratory, NoNetwork
from keyhaul.command.output import json_option, operations_of, print_json, print_table, size, wait_for

_KMS_ROLES = ("ckms", "akms", "ukms")

network_option = click.option(
    "--network", "directory", type=click.Path(file_okay=False, path_type=Path), help="Directory of a laid-out network."
)
config_option = click.option(
    "--config",
    "configs",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Configuration file of one service (repeatable).",
)


@click.group()
def link() -> None:
    """List, cut, restore and protect links."""


@link.command("list")
@network_option
@config_option
@json_option
def list_links(directory: Path | None, configs: tuple[Path, ...], as_json: bool) -> None:
    """List the links of a network or a service."""
    ends = wait_for(_ends(_services(directory, configs, _KMS_ROLES)))
    if as_json:
        print_json({"links": ends})
        return
    print_table(
        ("link", "end", "neighbour", "state", "protection", "pad out", "pad in", "control", "burned"),
        [
            (
                end["link"],
                end["service"],
                end["neighbour"],
                end["state"] if end["connected"] else "away",
                end["suite"] or "-",
                size(end["outgoing"]["payload_available"]),
                size(end["incoming"]["payload_available"]),
                size(end["outgoing"]["control_available"]),
                size(end["outgoing"]["burned_total"] + end["incoming"]["burned_total"]),
            )
            for end in ends
        ],
    )


@link.command()
@click.argument("name", metavar="LINK")
@network_option
@config_option
@json_option
def show(name: str, directory: Path | None, configs: tuple[Path, ...], as_json: bool) -> None:
    """Show one LINK, e.g. 8-9, at both its ends, with its modules."""
    ends = [end for end in wait_for(_ends(_services(directory, configs, _KMS_ROLES))) if end["link"] == name]
    modules = [one for one in wait_for(_modules(_services(directory, configs, ("qkdm",)))) if one.get("link") == name]
    if not ends and not modules:
        raise click.ClickException(f"no service that answers knows a link {name!r}; see `keyhaul link list`")
    if as_json:
        print_json({"link": name, "ends": ends, "modules": modules})
        return
    for facts in (*ends, *modules):
        click.echo(f"{facts['service']}:")
        for key, value in facts.items():
            if key not in ("service", "link"):
                click.echo(f"  {key}: {value if isinstance(value, str) else json.dumps(value)}")


@link.command()
@click.argument("name", metavar="LINK")
@network_option
@config_option
@json_option
def cut(name: str, directory: Path | None, configs: tuple[Path, ...], as_json: bool) -> None:
    """Cut the fibre of LINK: its simulated modules yield no more keys."""
    _change(name, {"action": "cut"}, "cut", directory, configs, as_json)


@link.command()
@click.argument("name", metavar="LINK")
@network_option
@config_option
@json_option
def restore(name: str, directory: Path | None, configs: tuple[Path, ...], as_json: bool) -> None:
    """Undo `cut` and `degrade` of LINK."""
    _change(name, {"action": "restore"}, "as configured again", directory, configs, as_json)


@link.command()
@click.argument("name", metavar="LINK")
@click.option("--qber", type=click.FloatRange(0.0, 0.5), help="Quantum bit error ratio from now on.")
@click.option("--factor", type=click.FloatRange(0.0, 1.0), help="Part of its key rate that the link keeps.")
@network_option
@config_option
@json_option
def degrade(
    name: str,
    qber: float | None,
    factor: float | None,
    directory: Path | None,
    configs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Make LINK's simulated modules worse."""
    if qber is None and factor is None:
        raise click.UsageError("give --qber, --factor, or both")
    given = {key: value for key, value in (("qber", qber), ("factor", factor)) if value is not None}
    _change(name, {"action": "degrade", **given}, "degraded", directory, configs, as_json)


@link.command()
@click.argument("name", metavar="LINK")
@click.argument("suites", nargs=-1, required=True, metavar="SUITE...")
@network_option
@config_option
@json_option
def protect(
    name: str, suites: tuple[str, ...], directory: Path | None, configs: tuple[Path, ...], as_json: bool
) -> None:
    """Change the protections that the ends of LINK accept, best first, e.g. otp aes-256-gcm. No restart is needed."""
    found = [
        (service, path)
        for service, path in _services(directory, configs, _KMS_ROLES)
        if name in {end["link"] for end in wait_for(_ends([(service, path)]))}
    ]
    arguments = {"link": name, "suites": list(suites)}
    _command(found, "protect", arguments, f"{name}: {', '.join(suites)}, best first", as_json, name)


def _change(
    name: str,
    arguments: dict[str, Any],
    done: str,
    directory: Path | None,
    configs: tuple[Path, ...],
    as_json: bool,
) -> None:
    modules = wait_for(_modules(_services(directory, configs, ("qkdm",))))
    at_link = {one["service"] for one in modules if one.get("link") == name}
    found = [(service, path) for service, path in _services(directory, configs, ("qkdm",)) if service in at_link]
    _command(found, "link", {"link": name, **arguments}, f"{name} is {done}", as_json, name)


def _command(
    services: list[tuple[str, Path]], command: str, arguments: dict[str, Any], done: str, as_json: bool, name: str
) -> None:
    """Ask every service in turn; all or an error that says which did it."""
    from keyhaul.runtime.local import LocalSocketError, ask

    if not services:
        raise click.ClickException(f"no service that answers knows a link {name!r}; see `keyhaul link list`")
    answers: dict[str, Any] = {}
    for service, path in services:
        try:
            answers[service] = wait_for(ask(path, command, arguments))
        except LocalSocketError as error:
            before = f" (done at {', '.join(answers)})" if answers else ""
            raise click.ClickException(f"{service}: {error}{before}") from error
    if as_json:
        print_json({"link": name, "services": answers})
    else:
        click.echo(f"{done} ({', '.join(answers)})")


async def _ends(services: list[tuple[str, Path]]) -> list[dict[str, Any]]:
    answers = await asyncio.gather(*(_ask(path, "links") for _, path in services))
    ends = [
        {"service": service, **end}
        for (service, _), answer in zip(services, answers, strict=True)
        for end in answer.get("links", ())
    ]
    return sorted(ends, key=lambda end: ([_number(part) for part in end["link"].split("-")], end["link"]))


async def _modules(services: list[tuple[str, Path]]) -> list[dict[str, Any]]:
    answers = await asyncio.gather(*(_ask(path, "modules") for _, path in services))
    return [
        {"service": service, **module}
        for (service, _), answer in zip(services, answers, strict=True)
        for module in answer.get("modules", ())
    ]


async def _ask(path: Path, command: str) -> dict[str, Any]:
    """A service's answer; empty, with a word on standard error, where there is none."""
    from keyhaul.runtime.local import LocalSocketError, ask

    try:
        return await ask(path, command, deadline=5.0)
    except LocalSocketError as error:
        click.echo(f"{error}", err=True)
        return {}


def _services(directory: Path | None, configs: tuple[Path, ...], roles: tuple[str, ...]) -> list[tuple[str, Path]]:
    """Ids and sockets of the services that are asked."""
    if (directory is None) == (not configs):
        raise click.UsageError("give --network DIRECTORY, or --config FILE of the services to ask")
    if directory is None:
        operations = [operations_of(config) for config in configs]
        return [(service, path) for role, service, path in operations if role in roles]
    try:
        laboratory = Laboratory.read(directory)
    except NoNetwork as error:
        raise click.ClickException(str(error)) from error
    return [(service.id, service.socket) for service in laboratory.services if service.role in roles]


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
