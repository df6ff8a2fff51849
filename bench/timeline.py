"""Where the time of one key goes: `python -m bench.timeline [--svg FILE]` measures, prints and draws it.

A network as that of `t_key_cold`, whose services note when messages come in and how long their commits take. Keys are
shared one after the other, so that what is noted between the beginning and the end of one belongs to it. Noting
costs some time itself; the sum is compared with the same network without it by `t_key_cold`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from bench.encryptor import Encryptor
from bench.network import ROOT, Network, laid_out

SAMPLES = 300
WARM_UP = 20
PAUSE = 0.03
"""Seconds between keys: what follows one (settling, usage) is over before the next begins."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the way of one key; it ends when a service hears `until`, or at an encryptor where that is empty."""

    title: str
    until: str
    role: str
    commits: tuple[str, ...] = ()
    """Roles whose commits lie on the way in it."""
    last: bool = False
    """Whether the last such message before the encryptor's answer ends it, not the first."""


STAGES = (
    Stage("encryptor asks; UKMS A to AKMS A", "access.request", "akms", ("ukms",)),
    Stage("AKMS A finds the grant, asks AKMS B", "peer.request", "akms", ("akms",)),
    Stage("AKMS B draws and announces CN bits", "carrier.submit", "ckms", ("akms",)),
    Stage("twelve hops over the carrier", "carrier.deliver", "akms"),
    Stage("both AKMSs confirm the bits", "peer.confirm", "akms"),
    Stage("keys sealed, handed to AKMS A", "peer.transfer", "akms", ("akms", "ukms")),
    Stage("released in one transaction at AKMS A", "delivery.push", "ukms", ("akms",), last=True),
    Stage("kept durably at UKMS A, answered", "", "", ("ukms",)),
    Stage("the other encryptor fetches its copy", "", "", ("ukms",)),
)

Moment = tuple[int, str, str, str]
"""Nanoseconds, service, kind, what."""


@dataclass(frozen=True, slots=True)
class Share:
    """One key as the encryptors saw it, nanoseconds of CLOCK_MONOTONIC."""

    begin: int
    issued: int
    end: int


async def collect(network: Network) -> list[Share]:
    """Share keys, one after the other."""
    first, second = network.far_pair()
    shares = []
    async with Encryptor(first) as master, Encryptor(second) as slave:
        for index in range(WARM_UP + SAMPLES):
            begin = time.monotonic_ns()
            made = await master.get_key(slave.id)
            issued = time.monotonic_ns()
            taken = await slave.get_key_with_ids(master.id, list(made))
            if made != taken:
                raise AssertionError("the two encryptors got different keys")
            if index >= WARM_UP:
                shares.append(Share(begin, issued, time.monotonic_ns()))
            await asyncio.sleep(PAUSE)
    return shares


def read(directory: Path) -> list[Moment]:
    """All moments of all services, in order."""
    found = []
    for path in directory.glob("*.notes"):
        for line in path.read_text().splitlines():
            at, service, kind, what = line.split(" ")
            found.append((int(at), service, kind, what))
    return sorted(found)


def cut(share: Share, moments: Sequence[Moment]) -> list[tuple[int, int]] | None:
    """Nanoseconds of each stage and those of it that waited for commits; None if a message is not found."""
    heard: dict[tuple[str, str], list[int]] = {}
    commits: dict[str, list[tuple[int, int]]] = {}
    for at, service, kind, what in moments:
        role = service.partition("-")[0]
        if kind == "in":
            heard.setdefault((role, what), []).append(at)
        else:
            commits.setdefault(role, []).append((at, at + int(what)))
    stages = []
    begin = share.begin
    for index, stage in enumerate(STAGES):
        if stage.until:
            times = heard.get((stage.role, stage.until), [])
            times = [at for at in times if begin <= at <= share.issued]
            if not times:
                return None
            end = times[-1 if stage.last else 0]
        else:
            end = share.end if index == len(STAGES) - 1 else share.issued
        spans = [span for role in stage.commits for span in commits.get(role, [])]
        stages.append((end - begin, covered(spans, begin, end)))
        begin = end
    return stages


def covered(spans: list[tuple[int, int]], begin: int, end: int) -> int:
    """How much of an interval lies in any of the spans."""
    total, reached = 0, begin
    for low, high in sorted(spans):
        low, high = max(low, reached), min(high, end)
        if high > low:
            total += high - low
            reached = high
    return total


def medians(shares: Sequence[Share], moments: list[Moment]) -> tuple[list[tuple[float, float]], int]:
    """Milliseconds of each stage, and of commits in it: medians over the keys; and over how many."""
    times = [moment[0] for moment in moments]
    cuts = []
    for share in shares:
        stages = cut(share, moments[bisect_left(times, share.begin) : bisect_left(times, share.end)])
        if stages is not None:
            cuts.append(stages)
    if not cuts:
        raise LookupError("in no key were all messages found")
    columns = zip(*cuts, strict=True)
    found = [tuple(statistics.median(values) / 1e6 for values in zip(*column, strict=True)) for column in columns]
    return [(whole, commit) for whole, commit in found], len(cuts)


def picture(stages: Sequence[tuple[float, float]], samples: int) -> str:
    """The stages one below the other, as SVG."""
    total = sum(whole for whole, _ in stages)
    left, width, row, top = 330, 620, 30, 64
    scale = width / total
    height = top + row * len(stages) + 44
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 90} {height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13" fill="#1f2933">',
        f'<rect width="{left + width + 90}" height="{height}" fill="#ffffff"/>',
        '<text x="16" y="28" font-size="16" font-weight="bold">One key with nothing prepared</text>',
        f'<text x="16" y="48" fill="#52606d">medians of {samples} keys, {total:.1f} ms in all; '
        "dark: waiting for a commit to be on disk</text>",
    ]
    at = 0.0
    for number, (stage, (whole, commit)) in enumerate(zip(STAGES, stages, strict=True)):
        y = top + row * number
        x = left + at * scale
        lines += [
            f'<text x="{left - 12}" y="{y + 18}" text-anchor="end">{escape(stage.title)}</text>',
            f'<rect x="{x:.1f}" y="{y + 4}" width="{max(whole * scale, 1):.1f}" height="20" rx="2" fill="#7fb2e5"/>',
        ]
        if commit > 0:
            lines.append(
                f'<rect x="{x:.1f}" y="{y + 4}" width="{commit * scale:.1f}" height="20" rx="2" fill="#2b5c8a"/>'
            )
        lines.append(f'<text x="{x + whole * scale + 6:.1f}" y="{y + 18}" fill="#52606d">{whole:.2f}</text>')
        at += whole
    foot = top + row * len(stages) + 8
    lines.append(f'<line x1="{left}" y1="{foot}" x2="{left + width}" y2="{foot}" stroke="#9aa5b1"/>')
    step = 5 if total > 12 else 1
    for mark in range(0, int(total) + 1, step):
        x = left + mark * scale
        lines.append(f'<line x1="{x:.1f}" y1="{foot}" x2="{x:.1f}" y2="{foot + 5}" stroke="#9aa5b1"/>')
        lines.append(f'<text x="{x:.1f}" y="{foot + 20}" text-anchor="middle" fill="#52606d">{mark} ms</text>')
    return "\n".join([*lines, "</svg>", ""])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.timeline", description="Show where the time of one key goes."
    )
    parser.add_argument("--svg", type=Path, help="draw it into this file")
    arguments = parser.parse_args()
    with laid_out(without_pools=True) as network, tempfile.TemporaryDirectory(prefix="kh-notes-", dir="/tmp") as notes:
        command = [sys.executable, str(ROOT / "bench" / "stopwatch.py"), notes, str(network.directory)]
        subprocess.run(command, check=True, cwd=ROOT)
        shares = asyncio.run(collect(network))
        stages, samples = medians(shares, read(Path(notes)))
    for stage, (whole, commit) in zip(STAGES, stages, strict=True):
        print(f"{whole:7.3f} ms, {commit:6.3f} of it commits  {stage.title}", file=sys.stderr)
    if arguments.svg is not None:
        arguments.svg.write_text(picture(stages, samples))
    print(
        json.dumps(
            {
                "name": "timeline",
                "samples": samples,
                "total_ms": round(sum(whole for whole, _ in stages), 3),
                "stages": {
                    stage.title: {"ms": round(whole, 3), "commits_ms": round(commit, 3)}
                    for stage, (whole, commit) in zip(STAGES, stages, strict=True)
                },
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
