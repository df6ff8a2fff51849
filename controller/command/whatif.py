"""`keyhaul whatif`: these fail, or this becomes the plan; who is affected, do they still fit?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller.command.path import rows_of
from controller.command.places import controller_options, places
from controller.command.showing import ckms, node, plural
from keyhaul.command.output import ConfigurationRefused, print_json, print_table

if TYPE_CHECKING:
    from controller.command.connecting import Session
    from keyhaul.transport.messages import foresight

MEANING = {
    "lost": "stop, and fit nowhere",
    "rerouted": "stop until new paths are installed",
    "weakened": "go on, with less than their class demands",
    "protected": "go on, and get all that their class demands again",
}


@click.command()
@click.option("--link", "links", multiple=True, help="This link fails, e.g. 8-9 (repeatable).")
@click.option("--node", "nodes", multiple=True, help="This node fails (repeatable).")
@click.option("--risk-group", "groups", multiple=True, help="All links of this risk group fail (repeatable).")
@click.option(
    "--description",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Instead: this network description, or plan as JSON, is put in force.",
)
@click.option("--loopback", help="Base of the description's loopback addresses, as `network init` was given it.")
@controller_options
def whatif(
    links: tuple[str, ...],
    nodes: tuple[str, ...],
    groups: tuple[str, ...],
    description: Path | None,
    loopback: str | None,
    directory: Path | None,
    controllers: tuple[str, ...],
    identity: Path | None,
    as_json: bool,
) -> None:
    """Say who would be affected if these failed together, and whether they would still fit. Nothing is changed.

    Exit code 1: somebody would be lost.
    """
    if bool(links or nodes or groups) == (description is not None):
        raise click.UsageError("say what fails: --link, --node or --risk-group; or give a changed --description")
    from controller.command.connecting import ask
    from keyhaul.transport.messages import foresight
    from keyhaul.transport.operations import NETWORK_DRYRUN, NETWORK_WHATIF

    where = places(directory, controllers, identity)
    changed = None if description is None else _plan(description, loopback)
    failing = foresight.WhatIf(nodes=[ckms(name) for name in nodes], links=list(links), risk_groups=list(groups))

    async def work(session: Session) -> foresight.Impact:
        if changed is not None:
            return await session.call(NETWORK_DRYRUN, changed)
        return await session.call(NETWORK_WHATIF, failing)

    told = ask(where, work)
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(told))
    else:
        if isinstance(told, foresight.Rehearsed):
            _show_changes(told)
        _show(told)
    if told.fates.get("lost"):
        raise click.exceptions.Exit(1)


def _plan(file: Path, loopback: str | None) -> foresight.DryRun:
    from keyhaul.command.init import read_description
    from keyhaul.config.carrier import load
    from keyhaul.config.controllers import carrier_plan
    from keyhaul.config.problems import ConfigurationError
    from keyhaul.transport.messages import foresight

    try:
        plan = load(file)[0] if file.suffix == ".json" else carrier_plan(read_description(file, loopback))
    except ConfigurationError as error:
        raise ConfigurationRefused(str(error)) from error
    return foresight.DryRun(
        nodes=[
            foresight.PlannedNodeFacts(
                id=one.id, access=one.access, jurisdiction=one.jurisdiction, place=one.place, target=one.target
            )
            for one in plan.nodes
        ],
        links=[
            foresight.PlannedLinkFacts(
                id=one.id,
                a=one.a,
                b=one.b,
                quantum=one.quantum,
                rate=one.rate,
                capacity=one.capacity,
                suites=list(one.suites),
                risk_groups=list(one.risk_groups),
                km=one.km,
            )
            for one in plan.links
        ],
    )


def _show(told: foresight.Impact) -> None:
    affected = sum(told.fates.values())
    click.echo(f"{affected} of {plural(told.demands, 'demand')} would be affected" + (":" if affected else "."))
    for fate, count in told.fates.items():
        if count:
            click.echo(f"  {count:>6} {fate}: {MEANING.get(fate, fate)}")
    if told.broken:
        click.echo(f"{told.broken} have no path that works even now.")
    if told.outcomes:
        print_table(("fate", "class", "bit/s", "demand", "paths then", "why not more"), rows_of(told.outcomes))
    if told.left_out:
        click.echo(f"{plural(told.left_out, 'demand')} more not listed.")
    if told.islands:
        click.echo("Access nodes would be apart: " + " | ".join(" ".join(map(node, group)) for group in told.islands))


def _show_changes(told: foresight.Rehearsed) -> None:
    if not told.changes:
        click.echo("The plan would not change.")
        return
    print_table(
        ("change", "what", "from", "to"),
        [
            row
            for one in told.changes
            for row in (
                [
                    (one.change, f"{one.what} {one.id}", f"{field}: {before}", f"{field}: {after}")
                    for field, (before, after) in one.fields.items()
                ]
                or [(one.change, f"{one.what} {one.id}", "", "")]
            )
        ],
    )
    if told.changes_left_out:
        click.echo(f"{plural(told.changes_left_out, 'change')} more not listed.")
