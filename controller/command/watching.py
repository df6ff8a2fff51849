"""What `keyhaul top` shows: looks at the network, one after the other, each drawn to the terminal's size."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import msgspec
from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from controller.command.connecting import Session
from controller.command.showing import (
    both,
    compact,
    figure,
    head,
    held_for,
    is_broken,
    is_served,
    node,
    refusal,
    share,
    state,
    use,
)
from controller.command.topology import event_line
from keyhaul.command.output import Failed, print_json
from keyhaul.transport.messages import network
from keyhaul.transport.operations import (
    NETWORK_DEMANDS,
    NETWORK_EVENTS,
    NETWORK_LINKS,
)

EVENTS = 100
"""Events that are kept to be shown."""

BAR = 10
"""Characters of a pool's level."""

IDLE = 4.0
"""A look follows so many times later than the one before it took, so that a great network is not asked without end."""

NOT_A_TERMINAL = 40
"""Lines where no terminal cuts them."""


@dataclass(slots=True)
class Look:
    """The network at one moment."""

    name: str
    at: float
    status: network.Status
    links: list[network.LinkFacts]
    demands: list[network.DemandFacts]
    events: list[network.EventFacts] = field(default_factory=list)
    trouble: str = ""
    """Why this is not how it is now."""


async def watch(session: Session, every: float, once: bool, as_json: bool, clock: Callable[[], float]) -> None:
    """Show the network until interrupted, or once.

    Args:
        session: the controller.
        every: seconds.
        once: whether to end after one look.
        as_json: print documents instead.
        clock: seconds since 1970, for the time that is shown.
    """
    look = await _look(session, None, clock())
    console = Console()
    if as_json:
        while True:
            parts = {"status": look.status, "links": look.links, "demands": look.demands}
            print_json({"controller": look.name} | {name: msgspec.to_builtins(part) for name, part in parts.items()})
            if once:
                return
            look, _ = await _next(session, look, every, clock)
    if once:
        console.print(drawn(look, console.width, console.height if console.is_terminal else NOT_A_TERMINAL))
        return
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        pause = every
        while True:
            live.update(drawn(look, console.width, console.height), refresh=True)
            look, pause = await _next(session, look, pause, clock)
            pause = max(every, pause)


async def _next(session: Session, look: Look, pause: float, clock: Callable[[], float]) -> tuple[Look, float]:
    """The look after a pause, and how long to pause at least after it; the same look, with why, where none succeeds."""
    await asyncio.sleep(pause)
    began = time.monotonic()
    try:
        return await _look(session, look, clock()), IDLE * (time.monotonic() - began)
    except Failed as error:
        look.trouble = error.message
        return look, pause


async def _look(session: Session, before: Look | None, at: float) -> Look:
    status = await session.follow()
    links = await session.all(NETWORK_LINKS, "links") if status.links else []
    demands = await session.all(NETWORK_DEMANDS, "demands") if status.links and status.leads else []
    look = Look(session.name, at, status, links, demands)
    look.events = before.events if before else []
    seen = look.events[-1].number if look.events else 0
    if status.position > seen:
        after = max(seen, status.position - EVENTS)
        look.events = (look.events + await _events(session, after))[-EVENTS:]
    return look


async def _events(session: Session, after: int) -> list[network.EventFacts]:
    return (await session.call(NETWORK_EVENTS, network.AskEvents(after=after))).events


def drawn(look: Look, width: int, height: int) -> RenderableType:
    """A look, fitted into so many columns and lines."""
    title = Text(head(look.name, look.status), style="bold", overflow="fold")
    title.append(f"  {time.strftime('%H:%M:%S', time.localtime(look.at))}", style="not bold dim")
    parts: list[RenderableType] = [title]
    if look.trouble:
        parts.append(Text(f"This was so: {look.trouble}", style="bold red", no_wrap=True, overflow="ellipsis"))
    left = height - len(title.wrap(Console(width=width), width)) - bool(look.trouble)
    events, demands, links = _lines(left, len(look.events), sum(map(_demand_lines, look.demands)), len(look.links))
    parts.append(_links(look, links, width))
    if demands:
        parts.append(_demands(look, demands, width))
    if events:
        parts.append(Text("Events", style="bold"))
        parts += [_event(one) for one in look.events[-events:]]
    return Group(*parts)


HEADS = 3
"""Lines of a table beside its rows: head, rule, and what is not listed."""


def _lines(left: int, events: int, demands: int, links: int) -> tuple[int, int, int]:
    """How many lines events, demands and links get; half of what there is goes to links, if they need it."""
    rows = left - HEADS
    for_links = min(links, max(3, rows // 2))
    rows -= for_links
    for_events = min(events, max(0, min(rows // 3, rows - 1)))
    rows -= for_events + bool(for_events)
    for_demands = min(demands, rows - HEADS)
    rows -= for_demands + HEADS if for_demands > 0 else 0
    more = min(links - for_links, max(0, rows))
    return for_events, max(0, for_demands), for_links + more


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    return table


def _links(look: Look, rows: int, width: int) -> RenderableType:
    wide = width >= 100
    table = _table("link", "state", "rate", "promised", "pool", *(["", "QBER", "delay"] if wide else []))
    ordered = sorted(look.links, key=_health)
    for one in ordered[:rows]:
        first, second = one.directions
        lowest = min(one.directions, key=lambda each: each.pool / each.capacity if each.capacity else 0.0)
        more = (
            [
                f"> {share(first.pool, first.capacity)}, < {share(second.pool, second.capacity)}",
                "-" if one.qber is None else f"{100 * one.qber:.1f}%",
                f"{figure(one.latency_us / 1e3)} ms",
            ]
            if wide
            else []
        )
        table.add_row(
            one.id,
            Text(state(one), style=_STYLES[_health(one)]),
            both(*(each.rate for each in one.directions)),
            both(*(each.reserved for each in one.directions)),
            _bar(lowest),
            *more,
        )
    return _with_rest(table, len(ordered) - rows)


def _health(link: network.LinkFacts) -> int:
    """What is worse comes first."""
    if not link.up:
        return 0
    return 1 if link.disagreements else 2


_STYLES = ("bold red", "yellow", "green")


def _bar(direction: network.DirectionFacts) -> Text:
    """How full a pool is."""
    level = direction.pool / direction.capacity if direction.capacity else 0.0
    full = round(BAR * min(1.0, level))
    style = "red" if level < 0.1 else "yellow" if level < 0.3 else "green"
    bar = Text("█" * full, style=style)
    bar.append("░" * (BAR - full), style="dim")
    bar.append(f"{share(direction.pool, direction.capacity):>5}", style="default")
    return bar


def _demand_lines(demand: network.DemandFacts) -> int:
    return max(1, len(demand.paths) + (demand.refusal is not None))


DEMAND_COLUMNS = ("class", "bit/s", "path", "state", "for")
GAP = 2
"""Characters between two columns."""
WIDE = 1_000
"""More columns than any terminal has."""


def _demands(look: Look, rows: int, width: int) -> RenderableType:
    ordered = sorted(look.demands, key=lambda one: (is_served(one), one.refusal is None))
    room = width - _beside_paths(ordered)
    lines = list(chain.from_iterable(_demand(one, room) for one in ordered))
    table = _table(*DEMAND_COLUMNS)
    for line in lines[:rows]:
        table.add_row(*line)
    return _with_rest(table, len(lines) - rows)


def _beside_paths(demands: Sequence[network.DemandFacts]) -> int:
    """Columns that the rest of a line takes beside its path."""
    lines = [DEMAND_COLUMNS, *chain.from_iterable(_demand(one, WIDE) for one in demands)]
    widths = [max(cell_len(str(cell)) + GAP for cell in column) for column in zip(*lines, strict=True)]
    return sum(widths) - widths[DEMAND_COLUMNS.index("path")]


_PATH_STYLES = {"installed": "green", "draining": "dim", "broken": "bold red"}


def _demand(demand: network.DemandFacts, room: int) -> list[tuple[RenderableType, ...]]:
    """The lines about a demand; paths, or why there are none, get `room` characters."""
    first = (demand.service_class, figure(demand.rate))
    lines: list[tuple[RenderableType, ...]] = []
    for way in demand.paths:
        label = f"{use(way, demand.service_class)}: "
        text = label + compact(way.nodes, room - len(label))
        name = "broken" if is_broken(way) else way.state
        state = Text(name, style=_PATH_STYLES.get(name, "yellow"))
        lines.append((*(("", "") if lines else first), text, state, held_for(way, demand)))
    if demand.refusal is not None or not lines:
        ends = f"{node(demand.source)}>{node(demand.target)}"
        why = Text(ends if demand.refusal is None else f"{ends}: {refusal(demand.refusal)}")
        why.truncate(max(1, room), overflow="ellipsis")
        told = Text("weakened", style="yellow") if is_served(demand) else Text("no path", style="bold red")
        lines.append((*(("", "") if lines else first), why, told, ""))
    return lines


def _with_rest(table: Table, rest: int) -> RenderableType:
    return Group(table, Text(f"{rest} more", style="dim")) if rest > 0 else table


def _event(event: network.EventFacts) -> Text:
    return Text(event_line(event, "%H:%M:%S", brief=True), no_wrap=True, overflow="ellipsis")
