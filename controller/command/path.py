"""`keyhaul path`: demands with their paths, what they reserve, and why a path is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.command.places import controller_options, places
from controller.command.showing import ckms, figure, held_for, is_broken, is_served, node, refusal, route, share, use
from keyhaul.command.output import print_json, print_table

if TYPE_CHECKING:
    from controller.command.connecting import Session
    from keyhaul.transport.messages import foresight, network

CLASSES = ("gold", "silver", "bronze", "split")


@click.group()
def path() -> None:
    """Show paths, what they reserve, and why they are chosen."""


@path.command("list")
@click.option("--class", "service_class", type=click.Choice(CLASSES), help="Demands of this class only.")
@click.option("--node", "nodes", multiple=True, help="Demands that begin, end or pass there only (repeatable).")
@controller_options
def list_paths(
    service_class: str | None,
    nodes: tuple[str, ...],
    directory: Path | None,
    controllers: tuple[str, ...],
    identity: Path | None,
    as_json: bool,
) -> None:
    """List demands with their paths."""
    from controller.command.connecting import ask
    from keyhaul.transport.operations import NETWORK_DEMANDS

    where = places(directory, controllers, identity)
    everything = ask(where, lambda session: session.all(NETWORK_DEMANDS, "demands"))
    wanted = {ckms(name) for name in nodes}
    found = [
        one
        for one in everything
        if service_class in (None, one.service_class)
        and (not wanted or wanted & {one.source, one.target, *(name for way in one.paths for name in way.nodes)})
    ]
    if as_json:
        import msgspec

        print_json({"demands": msgspec.to_builtins(found)})
        return
    if not found:
        click.echo("There are no demands." if not everything else "There are no such demands.")
        return
    print_table(
        ("demand", "class", "bit/s", "path", "state", "for"),
        [row for demand in found for row in _rows(demand)],
    )


def broken_at(way: network.PathFacts) -> str:
    """Where a path that should carry a demand is broken; empty: it is not."""
    return f"broken at {', '.join(way.down)}" if is_broken(way) else ""


def _rows(demand: network.DemandFacts) -> list[tuple[str, ...]]:
    head = (demand.id[:8], demand.service_class, figure(demand.rate))
    ends = route((demand.source, demand.target))
    rows = [
        (use(way, demand.service_class) + ": " + route(way.nodes), broken_at(way) or way.state, held_for(way, demand))
        for way in demand.paths
    ]
    if demand.refusal is not None:
        rows.append((f"{ends}: {refusal(demand.refusal)}", "weakened" if is_served(demand) else "no path", ""))
    rows = rows or [(ends, "no path", "")]
    return [(*(head if not number else ("",) * len(head)), *row) for number, row in enumerate(rows)]


@path.command()
@controller_options
def reservations(directory: Path | None, controllers: tuple[str, ...], identity: Path | None, as_json: bool) -> None:
    """Show what is promised of the rate of each link's directions."""
    from controller.command.connecting import ask
    from keyhaul.transport.operations import NETWORK_RESERVATIONS

    where = places(directory, controllers, identity)
    found = ask(where, lambda session: session.all(NETWORK_RESERVATIONS, "reservations"))
    if as_json:
        import msgspec

        print_json({"reservations": msgspec.to_builtins(found)})
        return
    if not found:
        click.echo("Nothing is promised.")
        return
    print_table(
        ("link", "from", "rate", "promised", "", "to"),
        [
            (
                one.link,
                node(one.sender),
                figure(one.rate, "bit/s"),
                figure(one.reserved, "bit/s"),
                share(one.reserved, one.rate),
                ", ".join(f"{lease.demand[:8]} {figure(lease.rate)}" for lease in one.leases),
            )
            for one in found
        ],
    )


@path.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--class", "service_class", type=click.Choice(CLASSES), default="bronze", show_default=True)
@click.option("--rate", type=click.IntRange(0, 10**15), default=0, show_default=True, help="Bits per second of key.")
@click.option("--without-node", "nodes", multiple=True, help="Not over this node (repeatable).")
@click.option("--without-link", "links", multiple=True, help="Not over this link (repeatable).")
@click.option("--without-risk-group", "groups", multiple=True, help="Over no link of this risk group (repeatable).")
@click.option("--within", "jurisdictions", multiple=True, help="Only over nodes of this jurisdiction (repeatable).")
@click.option("--hops", type=click.IntRange(1, 10_000), help="At most so many hops.")
@click.option("--others", type=click.IntRange(0, 8), default=4, show_default=True, help="So many paths not chosen.")
@click.option("--verbose", is_flag=True, help="Each hop of each path.")
@controller_options
def explain(
    source: str,
    target: str,
    service_class: str,
    rate: int,
    nodes: tuple[str, ...],
    links: tuple[str, ...],
    groups: tuple[str, ...],
    jurisdictions: tuple[str, ...],
    hops: int | None,
    others: int,
    verbose: bool,
    directory: Path | None,
    controllers: tuple[str, ...],
    identity: Path | None,
    as_json: bool,
) -> None:
    """Say which path a demand FROM one node TO another would get now, why this one, and why not the others.

    Keys are handed in at FROM. Nodes are named as in the network's description, e.g. 2, or as services, ckms-2.
    """
    from controller.command.connecting import ask
    from keyhaul.transport.messages import foresight
    from keyhaul.transport.operations import NETWORK_EXPLAIN

    where = places(directory, controllers, identity)
    asked = foresight.Explain(
        source=ckms(source),
        target=ckms(target),
        service_class=service_class,
        rate=rate,
        constraints=foresight.ConstraintFacts(
            excluded_nodes=[ckms(name) for name in nodes],
            excluded_links=list(links),
            excluded_risk_groups=list(groups),
            jurisdictions=list(jurisdictions) or None,
            maximum_hops=hops,
        ),
        count=others,
    )

    async def work(session: Session) -> foresight.Explained:
        return await session.call(NETWORK_EXPLAIN, asked)

    told = ask(where, work)
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(told))
        return
    _decision(told, asked)
    if told.candidates:
        _candidates(told)
    if verbose:
        for one in told.candidates:
            _hops(one)


def _decision(told: foresight.Explained, asked: foresight.Explain) -> None:
    of = f"{asked.service_class} from {node(asked.source)} to {node(asked.target)}"
    if asked.rate:
        of += f" at {figure(asked.rate, 'bit/s')}"
    if told.refusal is not None:
        click.echo(f"{of}: refused: {refusal(told.refusal)}")
        if told.would_open:
            click.echo(f"In the way, each alone: {', '.join(told.would_open)}")
        return
    click.echo(f"{of}: granted")
    for way in told.admitted:
        click.echo(f"  {use(way, asked.service_class) + ':':<9} {route(way.nodes)}")
    single = f", and {told.undivided:g} over the best single path" if told.undivided else ""
    click.echo(f"Each bit of key costs {told.price:g} bits of link key while nothing fails{single}.")
    for kind in ("link", "risk group", "node"):
        names = [node(one.removeprefix(f"{kind} ")) for one in told.shared if one.startswith(f"{kind} ")]
        if names:
            click.echo(f"Primary and backup share the {kind}{'s' if len(names) > 1 else ''} {', '.join(names)}.")


def _candidates(told: foresight.Explained) -> None:
    print_table(
        ("path", "verdict", "why"),
        [(route(one.nodes), one.verdict, _why(one, told.policy)) for one in told.candidates],
    )


def _why(one: foresight.CandidateFacts, policy: str) -> str:
    return one.reason.replace("ckms-", "").removesuffix(f" by {policy}")


def _hops(one: foresight.CandidateFacts) -> None:
    print_table(
        ("link", "from", "to", "weight", "rate", "to spare", "pool", "obstacle"),
        [
            (
                hop.link,
                node(hop.origin),
                node(hop.to),
                str(hop.weight),
                figure(hop.rate, "bit/s"),
                figure(hop.spare, "bit/s"),
                share(hop.pool, hop.capacity),
                hop.obstacle or "-",
            )
            for hop in one.hops
        ],
        title=f"{route(one.nodes)} ({one.verdict})",
    )


def rows_of(outcomes: list[Any]) -> list[tuple[str, ...]]:
    """What would become of demands, for a table."""
    return [
        (
            one.fate,
            one.service_class,
            figure(one.rate),
            f"{node(one.source)} > {node(one.target)}",
            "; ".join(route(way.nodes) for way in one.after) or "-",
            "-" if one.refusal is None else refusal(one.refusal),
        )
        for one in outcomes
    ]
