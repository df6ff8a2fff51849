"""`keyhaul topology`: the network as the controller believes it to be, what disagrees, and what happened."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import Any, Literal

import click

from controller.command.places import controller_options, places
from controller.command.showing import both, compact, figure, head, node, share, shares, state
from keyhaul.command.output import UNREACHABLE, Failed, print_json, print_table

DEMAND = re.compile(r"[0-9a-f]{32}")

PERIODS = ("minute", "hour", "day")

BRIEF = 20
"""Characters of a path in a brief event."""

SUBJECTS = ("links", "nodes", "disagreements", "events", "history")


@click.command()
@click.argument("what", required=False, metavar="[WHAT]", type=click.Choice(SUBJECTS), default="links")
@click.option("--after", type=click.IntRange(0), help="Events after this number (default: the last 100).")
@click.option("--follow", is_flag=True, help="Go on with events as they happen, until interrupted.")
@click.option("--link", help="History of this link, e.g. 8-9.")
@click.option("--by", type=click.Choice(PERIODS), default="minute", show_default=True, help="Periods of the history.")
@click.option("--periods", type=click.IntRange(1, 1_440), default=60, show_default=True, help="How many of them.")
@controller_options
def topology(
    what: str,
    after: int | None,
    follow: bool,
    link: str | None,
    by: Literal["minute", "hour", "day"],
    periods: int,
    directory: Path | None,
    controllers: tuple[str, ...],
    identity: Path | None,
    as_json: bool,
) -> None:
    """Show the network as the controller believes it to be.

    WHAT is one of links (the default), nodes, disagreements, events, history (of a --link). Rates are bits per second
    of new link key, pools shares of what they hold at most; where the directions of a link differ, that from its first
    node comes first.
    """
    if what != "events" and (follow or after is not None):
        raise click.UsageError("--after and --follow go with events")
    if (what == "history") != (link is not None):
        raise click.UsageError("history is that of a --link, and of nothing else")
    import msgspec

    from controller.command.connecting import Session, ask
    from keyhaul.transport.messages.measured import AskHistory
    from keyhaul.transport.operations import NETWORK_HISTORY

    where = places(directory, controllers, identity)
    if what == "events":
        with contextlib.suppress(KeyboardInterrupt):
            ask(where, lambda session: _events(session, after, follow, as_json))
        return

    if link is not None:
        asked = AskHistory(link=link, by=by, periods=periods)
        found = ask(where, lambda session: session.call(NETWORK_HISTORY, asked)).periods
        if as_json:
            print_json({"link": link, "by": by, "periods": msgspec.to_builtins(found)})
        else:
            _show_history(found, by)
        return

    async def read(session: Session) -> tuple[str, Any, list[Any]]:
        from keyhaul.transport.messages import network
        from keyhaul.transport.operations import (
            NETWORK_DISAGREEMENTS,
            NETWORK_LINKS,
            NETWORK_NODES,
            NETWORK_STATUS,
        )

        status = await session.call(NETWORK_STATUS, network.Ask())
        match what:
            case "links":
                found = await session.all(NETWORK_LINKS, what)
            case "nodes":
                found = await session.all(NETWORK_NODES, what)
            case _:
                found = await session.all(NETWORK_DISAGREEMENTS, what)
        return session.name, status, found

    name, status, found = ask(where, read)
    if as_json:
        print_json({"controller": name, "status": msgspec.to_builtins(status), what: msgspec.to_builtins(found)})
        return
    click.echo(head(name, status))
    match what:
        case "links":
            _show_links(found)
        case "nodes":
            _show_nodes(found, status.quarantined)
        case _:
            _show_disagreements(found)


def _show_links(links: list[Any]) -> None:
    print_table(
        ("link", "state", "key", "rate", "reserved", "pool", "QBER", "delay", "km"),
        [
            (
                link.id,
                state(link),
                ("QKD" if link.quantum else "no QKD") if link.up else "-",
                both(*(one.rate for one in link.directions)),
                both(*(one.reserved for one in link.directions)),
                shares(link.directions),
                "-" if link.qber is None else f"{100 * link.qber:.1f}%",
                f"{figure(link.latency_us / 1e3)} ms",
                f"{link.km:g}",
            )
            for link in links
        ],
    )
    wrong = [one for link in links for one in link.disagreements]
    if wrong:
        click.echo(f"{len(wrong)} disagreements on these links: `keyhaul topology disagreements`")


def _show_history(periods: list[Any], by: str) -> None:
    if not periods:
        click.echo(
            "Nothing was measured then" + (": hours and days are made when they are over." if by != "minute" else ".")
        )
        return
    form = {"minute": "%d %b %H:%M", "hour": "%d %b %H:00", "day": "%d %b %Y"}[by]
    print_table(
        ("from", "sender", "up", "rate", "least", "most", "pool, bit", "least", "delay", "QBER", "most"),
        [
            (
                time.strftime(form, time.localtime(one.start)),
                node(one.sender),
                share(one.availability, 1),
                figure(one.rate),
                figure(one.rate_least),
                figure(one.rate_most),
                figure(one.pool),
                figure(one.pool_least),
                f"{figure(one.latency_most_us / 1e3)} ms",
                "-" if one.qber is None else f"{100 * one.qber:.1f}%",
                "-" if one.qber_most is None else f"{100 * one.qber_most:.1f}%",
            )
            for one in periods
        ],
    )


def _show_nodes(nodes: list[Any], quarantined: dict[str, str]) -> None:
    print_table(
        ("node", "place", "access", "jurisdiction", "state"),
        [
            (
                one.id,
                one.place or "-",
                "yes" if one.access else "-",
                one.jurisdiction or "-",
                ", ".join(
                    [
                        "silent" if one.silent else "tells of itself",
                        *([f"quarantined: {quarantined.get(one.id, '')}"] if one.quarantined else []),
                    ]
                ),
            )
            for one in nodes
        ],
    )


def _show_disagreements(found: list[Any]) -> None:
    if not found:
        click.echo("All is as planned, and both ends of each link say the same.")
        return
    print_table(
        ("what", "where", "who says what"),
        [(one.kind, one.subject, "; ".join(f"{said.who}: {said.what}" for said in one.said) or "-") for one in found],
    )


async def _events(session: Any, after: int | None, follow: bool, as_json: bool) -> None:
    from keyhaul.transport.messages import network
    from keyhaul.transport.operations import NETWORK_EVENTS, NETWORK_STATUS

    if after is None:
        after = max(0, (await session.call(NETWORK_STATUS, network.Ask())).position - 100)
    while True:
        wait = 20_000 if follow else 0
        try:
            reply = await session.call(NETWORK_EVENTS, network.AskEvents(after=after, wait_ms=wait))
        except Failed as error:
            if not follow or error.exit_code != UNREACHABLE:
                raise
            await session.follow()
            continue
        for event in reply.events:
            after = event.number
            show_event(event, as_json)
        if not follow and not reply.events:
            return


def show_event(event: Any, as_json: bool) -> None:
    """Print one event: a line of JSON, or one for people."""
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(event).decode())
    else:
        click.echo(event_line(event))


def event_line(event: Any, when: str = "%d %b %H:%M:%S", *, brief: bool = False) -> str:
    """An event for people, with its time in the form of `time.strftime`; a brief one tells of paths in short."""
    facts = dict(event.facts)
    if brief and (paths := facts.get("paths")):
        more = len(paths) - 1
        facts["paths"] = compact(paths[0], BRIEF) + (f" and {more} more" if more else "")
    told = []
    if facts.keys() >= {"source", "target", "class"}:
        told.append(f"{_brief(facts.pop('source'))} > {_brief(facts.pop('target'))} {facts.pop('class')}")
    told += [f"{name} {_brief(value)}" for name, value in facts.items()]
    at = time.strftime(when, time.localtime(event.at))
    return "  ".join(
        [f"{event.number:>6}", at, event.kind, _brief(event.subject), *([", ".join(told)] if told else [])]
    )


def _brief(value: Any) -> str:
    """A value of an event: nodes by name, demands by the first digits of their ids, paths with their nodes in order."""
    if isinstance(value, list):
        nested = any(isinstance(one, list) for one in value)
        return ("; " if nested else " > ").join(map(_brief, value))
    text = str(value)
    return text[:8] if DEMAND.fullmatch(text) else node(text)
