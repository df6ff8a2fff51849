"""Draws what `bench.routing` finds, as SVG: one panel a network, one line a policy, bars for the 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

COLOURS = ("#9aa5b1", "#e0a030", "#4c9f70", "#2b5c8a", "#a04668")
WIDTH, HEIGHT = 360, 260
LEFT, TOP, GAP = 64, 78, 70


def picture(
    curves: Mapping[tuple[str, float, str], tuple[float, float]],
    nets: Sequence[str],
    loads: Sequence[float],
    choices: Sequence[str],
) -> str:
    """Blocking probability (mean, half-width) by network, load and policy."""
    highest = max(mean + half for mean, half in curves.values())
    steps = max(1, -int(-highest * 10 // 1))
    whole = LEFT + len(nets) * (WIDTH + GAP)
    height = TOP + HEIGHT + 56
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13" fill="#1f2933">',
        f'<rect width="{whole}" height="{height}" fill="#ffffff"/>',
        '<text x="16" y="26" font-size="16" font-weight="bold">Demands blocked, by how paths are chosen</text>',
    ]
    at = 16.0
    for number, choice in enumerate(choices):
        colour = COLOURS[number]
        lines.append(f'<line x1="{at}" y1="45" x2="{at + 22}" y2="45" stroke="{colour}" stroke-width="2.5"/>')
        lines.append(f'<text x="{at + 28}" y="49">{escape(choice)}</text>')
        at += 52 + 7.2 * len(choice)
    for panel, net in enumerate(nets):
        left = LEFT + panel * (WIDTH + GAP)
        lines += _axes(left, net, loads, steps)
        for number, choice in enumerate(choices):
            points = [
                (left + WIDTH * load / (1.1 * max(loads)), *curves[net, load, choice])
                for load in loads
                if (net, load, choice) in curves
            ]
            lines += _curve(points, COLOURS[number], steps)
    return "\n".join([*lines, "</svg>", ""])


def _level(share: float, steps: int) -> float:
    return TOP + HEIGHT * (1 - share / (steps / 10))


def _axes(left: int, net: str, loads: Sequence[float], steps: int) -> list[str]:
    foot = TOP + HEIGHT
    lines = [
        f'<text x="{left}" y="{TOP - 8}" font-weight="bold">{escape(net)}</text>',
        f'<line x1="{left}" y1="{foot}" x2="{left + WIDTH}" y2="{foot}" stroke="#9aa5b1"/>',
        f'<text x="{left + WIDTH / 2:.0f}" y="{foot + 42}" text-anchor="middle" fill="#52606d">load</text>',
    ]
    for step in range(steps + 1):
        y = _level(step / 10, steps)
        lines.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + WIDTH}" y2="{y:.1f}" stroke="#e4e7eb"/>')
        lines.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#52606d">{10 * step} %</text>')
    for load in loads:
        x = left + WIDTH * load / (1.1 * max(loads))
        lines.append(f'<text x="{x:.1f}" y="{foot + 20}" text-anchor="middle" fill="#52606d">{load:.2f}</text>')
    return lines


def _curve(points: Sequence[tuple[float, float, float]], colour: str, steps: int) -> list[str]:
    way = " ".join(f"{x:.1f},{_level(mean, steps):.1f}" for x, mean, _ in points)
    lines = [f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2.5"/>']
    for x, mean, half in points:
        low, high = _level(max(0.0, mean - half), steps), _level(mean + half, steps)
        lines.append(f'<line x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}" stroke="{colour}"/>')
        lines.append(f'<circle cx="{x:.1f}" cy="{_level(mean, steps):.1f}" r="3" fill="{colour}"/>')
    return lines
