"""`keyhaul network apply`: a changed description put in force in a network that was laid out, without a restart."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keyhaul.command.output import ConfigurationRefused, Number, json_option, print_json

if TYPE_CHECKING:
    from keyhaul.command.laboratory.applying import Applying
    from keyhaul.config.changes import Change


@click.command()
@click.argument("description", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of the network, as `init` made it.",
)
@click.option("--dry-run", is_flag=True, help="Tell what would change, and change nothing.")
@click.option(
    "--timeout",
    type=Number(1.0, 86_400.0),
    default=120.0,
    show_default=True,
    help="Seconds until what is new must serve.",
)
@json_option
def apply(description: Path, out: Path, dry_run: bool, timeout: float, as_json: bool) -> None:
    """Change the network in --out to what DESCRIPTION says now; nothing that runs is restarted.

    Carrier nodes and links between them come and go, and what a controller has to know of them changes. Keys,
    certificates and stores that are there stay as they are. What cannot change while the network runs is refused, and
    then nothing is changed. After an interruption, apply again.
    """
    from keyhaul.command.init import read_description
    from keyhaul.command.laboratory.applying import Applying
    from keyhaul.command.laboratory.files import NoNetwork
    from keyhaul.command.laboratory.listing import NETWORK_FILE
    from keyhaul.command.laboratory.running import NotApplied
    from keyhaul.config.apart import warnings
    from keyhaul.config.description_checks import load_description
    from keyhaul.config.problems import ConfigurationError
    from keyhaul.identity.errors import IdentityError

    out = out.absolute()
    if not (out / NETWORK_FILE).exists():
        raise click.ClickException(
            f"{out} holds no {NETWORK_FILE}: it is no network, or an earlier release laid it out. "
            f"Lay one out by `keyhaul network init {description} --out DIRECTORY`"
        )
    try:
        loopback = load_description(out / NETWORK_FILE).network.loopback
        changed = read_description(description, loopback)
        applying = Applying(out, changed)
        warned = list(warnings(changed))
        refused = [change for change in applying.changes if change.refused]
        if not as_json:
            _show(applying.changes)
        if refused or dry_run or not (applying.changes or applying.interrupted):
            done = None
        else:
            done = applying.apply(timeout, lambda line: click.echo(line, err=True))
    except ConfigurationError as error:
        raise ConfigurationRefused(str(error)) from error
    except (NotApplied, NoNetwork, IdentityError) as error:
        raise click.ClickException(str(error)) from error
    for warning in () if as_json else warned:
        click.echo(f"Warning: {warning}", err=True)
    if as_json:
        print_json(_document(applying, warned, None if done is None else dataclasses.asdict(done)))
    if refused:
        raise click.ClickException("nothing is changed: what is marked above cannot be while the network runs")
    if as_json:
        return
    if done is None:
        _say_nothing_done(applying)
        return
    for service, fields in done.restart.items():
        click.echo(f"Warning: {service} takes this only at its next start: {', '.join(fields)}", err=True)
    if done.running:
        click.echo(
            f"Applied: {len(done.started)} services started, {len(done.stopped)} stopped, "
            f"{len(done.reloaded)} took their new configuration; none was restarted."
        )
    else:
        click.echo("Applied. The network is not up; it starts with what is there now.")


def _say_nothing_done(applying: Applying) -> None:
    if not applying.changes and not applying.interrupted:
        click.echo("Nothing to do: the network is what the description says.")
    elif applying.interrupted:
        click.echo("Nothing is changed yet. What somebody began to apply is to be ended: apply without --dry-run.")
    else:
        click.echo("Nothing is changed yet: apply without --dry-run.")


def _show(changes: list[Change]) -> None:
    for change in changes:
        mark = {"added": "+", "removed": "-", "changed": "~"}[change.kind]
        click.echo(f"{mark} {change.what} {change.id}".rstrip())
        for name, before, after in change.fields:
            click.echo(f"    {name}: {_text(before)} → {_text(after)}")
        if change.refused:
            click.echo(f"    refused: {change.refused}")


def _document(applying: Applying, warned: list[str], done: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "changes": [
            {
                "what": change.what,
                "id": change.id,
                "change": change.kind,
                "fields": {name: [_plain(before), _plain(after)] for name, before, after in change.fields},
                "refused": change.refused or None,
            }
            for change in applying.changes
        ],
        "warnings": warned,
        "interrupted": applying.interrupted,
        "applied": done,
    }


def _plain(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value)


def _text(value: Any) -> str:
    import json

    return json.dumps(_plain(value), ensure_ascii=False)
