"""The live terminal view: links and their pads, the encryptors' traffic, what is going on."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from keyhaul.demo.encryptors import Traffic
from keyhaul.demo.observe import LinkView

DEMOQUANDT_T_KEY_MS = 17_340.0
_STATE_STYLE = {"up": "green", "establishing": "yellow"}


@dataclass
class Scene:
    """Everything that one frame of the view shows."""

    title: str
    links: Sequence[LinkView] = ()
    traffic: Traffic | None = None
    detour: str = ""
    detour_bytes: int = 0
    cut: str = ""
    steps: list[str] = field(default_factory=list)
    t_key_ms: dict[str, list[float]] = field(default_factory=dict)
    """Measured one after the other, by the state of the network, milliseconds."""


def draw(scene: Scene) -> RenderableType:
    """One frame."""
    parts: list[RenderableType] = [_links(scene)]
    if scene.traffic is not None:
        parts.append(_traffic(scene, scene.traffic))
    parts.append(Panel(Text("\n".join(scene.steps[-6:])), title="what happens", border_style="blue"))
    return Group(Text(scene.title, style="bold"), *parts)


def quantiles(samples_ms: Sequence[float]) -> tuple[float, float]:
    """Median and 99th percentile, milliseconds."""
    ordered = sorted(samples_ms)
    return statistics.median(ordered), ordered[round(0.99 * (len(ordered) - 1))]


def _links(scene: Scene) -> Table:
    table = Table(title="Links: pad ready for payload, in each direction", title_justify="left", expand=True)
    table.add_column("link", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("protection", no_wrap=True)
    table.add_column("out", justify="right", no_wrap=True)
    table.add_column("", ratio=1)
    table.add_column("in", justify="right", no_wrap=True)
    table.add_column("", ratio=1)
    most = max((max(link.outgoing, link.incoming) for link in scene.links), default=0) or 1
    for link in scene.links:
        state = "cut" if link.id == scene.cut else link.state
        table.add_row(
            link.id,
            Text(state, style="red" if state == "cut" else _STATE_STYLE.get(link.state, "red")),
            link.suite,
            f"{link.outgoing / 1024:.1f} KiB",
            Bar(most, 0, link.outgoing, color="green"),
            f"{link.incoming / 1024:.1f} KiB",
            Bar(most, 0, link.incoming, color="cyan"),
        )
    return table


def _traffic(scene: Scene, traffic: Traffic) -> Panel:
    grid = Table.grid(padding=(0, 2))
    grid.add_row("frames opened at the other end", f"{traffic.frames_opened} of {traffic.frames_sent}")
    grid.add_row("frames refused", str(traffic.frames_refused))
    grid.add_row("keys used", f"{traffic.keys_used}, the last {traffic.last_key_id or '-'}")
    for when, samples in ({"the encryptors' own": traffic.t_key_ms} | scene.t_key_ms).items():
        if samples:
            median, p99 = quantiles(samples)
            grid.add_row(f"T_key, {when}", f"median {median:.1f} ms, p99 {p99:.1f} ms of {len(samples)}")
    grid.add_row("T_key, DemoQuanDT's field network", f"{DEMOQUANDT_T_KEY_MS:.0f} ms")
    if scene.detour:
        grid.add_row(f"CN key bits relayed by {scene.detour}", f"{8 * scene.detour_bytes}")
    return Panel(grid, title="two encryptors, AES-256-GCM, a new key each second", border_style="green")
