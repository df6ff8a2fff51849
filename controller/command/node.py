"""`keyhaul node`: keep a node that may be compromised out of all paths, and burn what crossed it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller.command.places import controller_options, places
from controller.command.showing import ckms
from keyhaul.command.output import print_json

if TYPE_CHECKING:
    from controller.command.connecting import Session


@click.group()
def node() -> None:
    """Keep nodes out of all paths, and let them in again."""


@node.command()
@click.argument("name", metavar="NODE")
@click.option("--reason", required=True, help="Why; for those who come after you.")
@controller_options
def quarantine(
    name: str,
    reason: str,
    directory: Path | None,
    controllers: tuple[str, ...],
    identity: Path | None,
    as_json: bool,
) -> None:
    """Keep NODE out of all paths until it is released; paths over it move at once.

    CN keys that crossed it are burned, and keys made under them that nobody got yet are void. Ask first what quarantine
    does to paths: `keyhaul whatif --node NODE`. Needs the certificate of an operator.
    """
    from controller.command.connecting import ask
    from keyhaul.transport.messages import network
    from keyhaul.transport.operations import NETWORK_QUARANTINE

    async def work(session: Session) -> int | None:
        return (await session.call(NETWORK_QUARANTINE, network.Quarantine(node=ckms(name), reason=reason))).exposed

    exposed = ask(places(directory, controllers, identity, "operator"), work)
    if as_json:
        print_json({"node": ckms(name), "quarantined": True, "exposed": exposed})
        return
    click.echo(f"{ckms(name)} is in quarantine. `keyhaul node release {name}` ends it.")
    if exposed is None:
        click.echo("This controller is older than this tool: what crossed the node is not burned.")
    else:
        click.echo(f"Keys of {exposed} demand{'' if exposed == 1 else 's'} crossed it; their access nodes burn them.")


@node.command()
@click.argument("name", metavar="NODE")
@controller_options
def release(
    name: str, directory: Path | None, controllers: tuple[str, ...], identity: Path | None, as_json: bool
) -> None:
    """Let NODE be in paths again. Needs the certificate of an operator."""
    from controller.command.connecting import ask
    from keyhaul.transport.messages import network
    from keyhaul.transport.operations import NETWORK_RELEASE

    async def work(session: Session) -> bool:
        return (await session.call(NETWORK_RELEASE, network.Release(node=ckms(name)))).was_quarantined

    was = ask(places(directory, controllers, identity, "operator"), work)
    if as_json:
        print_json({"node": ckms(name), "was_quarantined": was})
    else:
        click.echo(f"{ckms(name)} may be in paths again." if was else f"{ckms(name)} was not in quarantine.")
