"""A look is drawn to the terminal's size, with what is wrong first."""

from __future__ import annotations

import asyncio
import io
import re
from typing import Any

import pytest
from msgspec import structs
from rich.console import Console

from controller.command import watching
from controller.command.showing import compact, figure, span
from controller.command.watching import Look, drawn
from keyhaul.command.output import Failed
from keyhaul.transport.messages import network

NODES = [f"ckms-{number}" for number in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)]


def direction(sender: str, level: float = 0.5) -> network.DirectionFacts:
    return network.DirectionFacts(sender=sender, rate=2_000, pool=int(level * 1_000), capacity=1_000, reserved=0)


def link(number: int, *, up: bool = True, wrong: bool = False, level: float = 0.5) -> network.LinkFacts:
    return network.LinkFacts(
        id=f"{number}-{number + 1}",
        a="a",
        b="b",
        state="disagreeing" if wrong else "found",
        up=up,
        directions=[direction("a", level), direction("b")],
        disagreements=[network.DisagreementFacts("rate", "x")] if wrong else [],
    )


def demand(number: int, *, served: bool = True) -> network.DemandFacts:
    return network.DemandFacts(
        id=f"{number:032x}",
        source=NODES[0],
        target=NODES[-1],
        service_class="bronze",
        rate=0,
        since_s=90.0,
        paths=[network.PathFacts(rank=0, nodes=NODES, links=[], state="installed")] if served else [],
        refusal=None if served else network.RefusalFacts("no path keeps to the constraints", 30.0),
    )


def look(links: int = 40, demands: int = 20, events: int = 30) -> Look:
    return Look(
        "controller-16",
        0.0,
        network.Status(leads=True, epoch=3, nodes=41, links=links, links_up=links - 1, demands=demands),
        [*(link(number) for number in range(links - 2)), link(98, wrong=True), link(99, up=False, level=0.05)],
        [*(demand(number) for number in range(demands - 1)), demand(77, served=False)],
        [
            network.EventFacts(number=number, at=0, kind="link-down", subject="8-9", facts={})
            for number in range(events)
        ],
    )


def lines(shown: Look, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    console.print(drawn(shown, width, height))
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("height", [16, 24, 40, 60])
@pytest.mark.parametrize("demands", [20, 200])
def test_a_great_network_fits_and_the_worst_is_seen(width: int, height: int, demands: int) -> None:
    shown = lines(look(demands=demands), width, height)
    assert len(shown) <= height
    assert max(map(len, shown)) <= width
    text = "\n".join(shown)
    rows = [line.split()[0] for line in shown if re.match(r"\d+-\d", line)]
    assert rows[:2] == ["99-100", "98-99"]
    assert "controller-16 leads in epoch 3" in text
    assert "more" in text
    if height >= 24:
        assert "2>14: no path keeps to the constraints" in text
        assert any(line.split()[:1] == ["29"] for line in shown)  # the last event


def test_a_small_network_is_shown_whole() -> None:
    text = "\n".join(lines(look(5, 2, 2), 80, 40))
    assert "more" not in text
    assert "primary: 2>3>4>5>6>7>8>9>10>11>12>13>14" in text
    assert "1 min 30 s" in text


def test_paths_that_are_broken_or_drain_are_told_from_those_that_carry() -> None:
    def way(rank: int, state: str, *down: str) -> network.PathFacts:
        return network.PathFacts(rank=rank, nodes=NODES, links=[], state=state, down=list(down))

    shown = look(5, 1, 2)
    carried = [way(0, "installed", "8-9"), way(1, "installed"), way(0, "draining")]
    cut = structs.replace(demand(2), paths=[way(0, "installed", "8-9")], refusal=network.RefusalFacts("none is left"))
    shown.demands = [structs.replace(demand(1), paths=carried), cut]
    told = [re.split(r"\s{2,}", line.strip())[-2:] for line in lines(shown, 80, 40) if ">14" in line]
    assert [row[0] if row[1].endswith("s") else row[1] for row in told] == [
        "broken",  # who is served by nothing comes first
        "no path",
        "broken",
        "installed",
        "draining",
    ]


def test_an_empty_network_is_shown_too() -> None:
    empty = Look("controller-16", 0.0, network.Status(leads=False), [], [])
    head = "controller-16 stands by, nobody is known to lead, plan 0, 0 nodes, 0 of 0 links up"
    assert lines(empty, 120, 24)[0].startswith(head)
    lost = Look("controller-16", 0.0, network.Status(leads=False, leader="10.0.0.1:7446", database=False), [], [])
    assert "nobody is known to lead" in lines(lost, 120, 24)[0]
    assert "the database does not answer" in lines(lost, 120, 24)[0]


async def test_what_cannot_be_renewed_stays_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        name = "controller-16"

        async def follow(self) -> None:
            raise Failed("controller-16: cannot be reached", 69)

    monkeypatch.setattr(asyncio, "sleep", _at_once)
    before = look()
    after, _ = await watching._next(Gone(), before, 1.0, lambda: 5.0)  # type: ignore[arg-type]
    assert after is before
    assert any(line.startswith("This was so: controller-16: cannot be reached") for line in lines(after, 80, 24))


@pytest.mark.parametrize(("seen", "position", "after"), [(0, 30, 0), (29, 31, 29), (29, 5_000, 4_900), (29, 29, None)])
async def test_only_the_last_events_are_asked_for(seen: int, position: int, after: int | None) -> None:
    class Stands:
        name = "controller-16"
        asked: int | None = None

        async def follow(self) -> network.Status:
            return network.Status(leads=True, position=position)

        async def call(self, operation: Any, request: Any) -> Any:
            self.asked = request.after
            return network.Events(events=look(events=position).events[-1:])

    session = Stands()
    before = look(events=seen + 1) if seen else None
    found = await watching._look(session, before, 0.0)  # type: ignore[arg-type]
    assert session.asked == after
    assert len(found.events) == (seen + 1 if seen else 0) + (after is not None)


async def _at_once(_: float) -> None:
    """Let no time pass."""


def test_a_long_path_keeps_its_ends() -> None:
    assert compact(NODES, 100) == "2>3>4>5>6>7>8>9>10>11>12>13>14"
    short = compact(NODES, 16)
    assert len(short) <= 16
    assert short.startswith("2>3>")
    assert short.endswith(">13>14")
    assert "…" in short


def test_figures_and_durations_in_few_digits() -> None:
    assert [figure(value, "bit/s") for value in (0, 113, 999.6, 1_234, 22_700, 2.5e9)] == [
        "0 bit/s",
        "113 bit/s",
        "1 kbit/s",
        "1.23 kbit/s",
        "22.7 kbit/s",
        "2.5 Gbit/s",
    ]
    assert [span(seconds) for seconds in (0.2, 59, 90, 7_260, 90_000)] == [
        "0 s",
        "59 s",
        "1 min 30 s",
        "2 h 1 min",
        "1 d 1 h",
    ]
