"""`keyhaul link`: links as their KMSs see them, and commands to simulated modules."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from keyhaul.command.laboratory.files import Laboratory, NoNetwork
from keyhaul.command.link_facts import describe_end, describe_module, state_of
from keyhaul.command.output import Number, json_option, operations_of, print_json, print_table, size, wait_for

_KMS_ROLES = ("ckms", "akms", "ukms")

Asked = tuple[tuple[str, Path], str, dict[str, Any]]
"""Id and socket of a service, the local command, its arguments."""


class NobodyAnswers(click.ClickException):
    """No service that was asked answers on its local socket."""

    exit_code = 69


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
    services = _services(directory, configs, _KMS_ROLES)
    if not services:
        raise click.UsageError(f"none of these services has links; those of {', '.join(_KMS_ROLES)} have")
    ends = wait_for(_ends(services))
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
                state_of(end),
                (end["suite"] or "-") + (" (set)" if end["chosen"] else ""),
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
    """Show one LINK (for example 8-9) at both its ends, with its modules."""
    ends = [end for end in wait_for(_ends(_services(directory, configs, _KMS_ROLES))) if end["link"] == name]
    modules = [one for one in wait_for(_modules(_services(directory, configs, ("qkdm",)))) if one.get("link") == name]
    if not ends and not modules:
        raise click.ClickException(f"no service that answers knows a link {name!r}; see `keyhaul link list`")
    if as_json:
        print_json({"link": name, "ends": ends, "modules": modules})
        return
    told = [(f"{name} at {end['service']}", describe_end(end)) for end in ends]
    told += [(f"module of {name} at {module['service']}", describe_module(module)) for module in modules]
    width = max(len(label) for _, facts in told for label, _ in facts)
    for title, facts in told:
        click.echo(title)
        for label, value in facts:
            click.echo(f"  {label:<{width}}  {value}")


@link.command()
@click.argument("name", metavar="LINK")
@network_option
@config_option
@json_option
def cut(name: str, directory: Path | None, configs: tuple[Path, ...], as_json: bool) -> None:
    """Cut the fibre of LINK: its simulated modules yield no more keys, and no message crosses it, until `restore`.

    A service that is started anew finds the fibre whole.
    """
    modules = _modules_of(name, directory, configs)
    asked: list[Asked] = [(end, "cut", {"link": name, "cut": True}) for end in _ends_of(name, directory, configs)]
    asked += [(module, "link", {"link": name, "action": "cut"}) for module in modules]
    _command(asked, f"{name} is cut", as_json, name)


@link.command()
@click.argument("name", metavar="LINK")
@network_option
@config_option
@json_option
def restore(name: str, directory: Path | None, configs: tuple[Path, ...], as_json: bool) -> None:
    """Undo `cut` and `degrade` of LINK."""
    modules = _modules_of(name, directory, configs)
    asked: list[Asked] = [(module, "link", {"link": name, "action": "restore"}) for module in modules]
    asked += [(end, "cut", {"link": name, "cut": False}) for end in _ends_of(name, directory, configs)]
    _command(asked, f"{name} is whole again", as_json, name)


@link.command()
@click.argument("name", metavar="LINK")
@network_option
@config_option
@json_option
def disable(name: str, directory: Path | None, configs: tuple[Path, ...], as_json: bool) -> None:
    """Take LINK out of use at its KMSs, through restarts, until `enable`; keys go another way."""
    asked: list[Asked] = [
        (end, "enable", {"link": name, "enabled": False}) for end in _ends_of(name, directory, configs)
    ]
    _command(asked, f"{name} is out of use", as_json, name)


@link.command()
@click.argument("name", metavar="LINK")
@network_option
@config_option
@json_option
def enable(name: str, directory: Path | None, configs: tuple[Path, ...], as_json: bool) -> None:
    """Use LINK again after `disable`."""
    asked: list[Asked] = [
        (end, "enable", {"link": name, "enabled": True}) for end in _ends_of(name, directory, configs)
    ]
    _command(asked, f"{name} is in use", as_json, name)


@link.command()
@click.argument("name", metavar="LINK")
@click.option("--qber", type=Number(0.0, 0.5), help="Quantum bit error ratio from now on.")
@click.option("--factor", type=Number(0.0, 1.0), help="Part of its key rate that the link keeps.")
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
    modules = _modules_of(name, directory, configs)
    asked: list[Asked] = [(module, "link", {"link": name, "action": "degrade", **given}) for module in modules]
    _command(asked, f"{name} is degraded", as_json, name)


@link.command()
@click.argument("name", metavar="LINK")
@click.argument("suites", nargs=-1, metavar="SUITE...")
@click.option("--reset", is_flag=True, help="Go back to the protections of the configuration.")
@network_option
@config_option
@json_option
def protect(
    name: str,
    suites: tuple[str, ...],
    reset: bool,
    directory: Path | None,
    configs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Change the protections that the ends of LINK accept, best first, e.g. otp aes-256-gcm.

    No restart is needed, and the change lasts through restarts until `--reset`. None is accepted that is weaker than
    the floor of the configuration.
    """
    if reset == bool(suites):
        raise click.UsageError("give the SUITEs, best first, or --reset")
    if len(set(suites)) != len(suites):
        raise click.UsageError("a SUITE is given twice")
    asked: list[Asked] = [
        (end, "protect", {"link": name, "suites": list(suites)}) for end in _ends_of(name, directory, configs)
    ]
    done = "protections as configured" if reset else f"{', '.join(suites)}, best first"
    _command(asked, f"{name}: {done}", as_json, name)


def _ends_of(name: str, directory: Path | None, configs: tuple[Path, ...]) -> list[tuple[str, Path]]:
    """Ids and sockets of the KMSs at a link."""
    services = _services(directory, configs, _KMS_ROLES)
    at_link = {end["service"] for end in wait_for(_ends(services)) if end["link"] == name}
    return [(service, path) for service, path in services if service in at_link]


def _modules_of(name: str, directory: Path | None, configs: tuple[Path, ...]) -> list[tuple[str, Path]]:
    """Ids and sockets of the processes with a link's simulated modules."""
    services = _services(directory, configs, ("qkdm",))
    at_link = {module["service"] for module in wait_for(_modules(services)) if module.get("link") == name}
    return [(service, path) for service, path in services if service in at_link]


def _command(asked: list[Asked], done: str, as_json: bool, name: str) -> None:
    """Ask one service after the other; all do it, or an error says which did."""
    from keyhaul.runtime.local import LocalSocketError, ask

    if not asked:
        raise click.ClickException(f"no service that answers knows a link {name!r}; see `keyhaul link list`")
    answers: dict[str, Any] = {}
    for (service, path), command, arguments in asked:
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
    answers = await _ask_all(services, "links")
    ends = [{"service": service, **end} for service, answer in answers for end in answer.get("links", ())]
    return sorted(ends, key=lambda end: ([_number(part) for part in end["link"].split("-")], end["link"]))


async def _modules(services: list[tuple[str, Path]]) -> list[dict[str, Any]]:
    answers = await _ask_all(services, "modules")
    return [{"service": service, **module} for service, answer in answers for module in answer.get("modules", ())]


async def _ask_all(services: list[tuple[str, Path]], command: str) -> list[tuple[str, dict[str, Any]]]:
    """The answers of those that answer; the others are named on standard error.

    Raises:
        NobodyAnswers: there is none.
    """
    from keyhaul.runtime.local import LocalSocketError, LocalUnreachable, ask

    async def one(service: str, path: Path) -> tuple[str, dict[str, Any]] | str:
        try:
            return service, await ask(path, command, deadline=5.0)
        except LocalUnreachable as error:
            silent.append(service)
            return str(error)
        except LocalSocketError as error:
            return f"{service}: {error}"

    silent: list[str] = []
    outcomes = await asyncio.gather(*(one(service, path) for service, path in services))
    if services and len(silent) == len(services):
        whom = silent[0] if len(silent) == 1 else f"none of {len(silent)} services ({', '.join(silent)})"
        raise NobodyAnswers(f"{whom} answers; do they run, as this user? `keyhaul network status` tells")
    for outcome in outcomes:
        if isinstance(outcome, str):
            click.echo(outcome, err=True)
    return [outcome for outcome in outcomes if not isinstance(outcome, str)]


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
