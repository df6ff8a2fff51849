"""Networks of any size for the benchmarks: cities in a plane, each joined to its nearest, long links split by trusted
nodes; and the link rates that DemoQuanDT measured.

The cities are joined in a ring as well, so that every two of them have two disjoint paths: a carrier that sells a
backup builds like that. Between cities, a link has a trusted node at least every `SPAN_KM`. At equal density the
networks are alike whatever their size: about 1.7 links a city and two trusted nodes for each city.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace

from controller.view import Direction, Link, NetworkView, Node

TABLE_3 = (2_000, 22_700, 1_200, 300, 21_300, 2_200, 11_800, 2_000)
"""Secret key rates of real links, bits per second: DemoQuanDT's Table 3."""

SPAN_KM = 80.0
KM_PER_CITY = 110.0
"""The side of the square that a city has to itself."""
NEAREST = 3
"""To how many of the nearest each city is joined at least."""
POOL_SECONDS = 60
"""What a pool holds: so many seconds of the link's rate."""

Point = tuple[float, float]


def network(size: int, seed: int = 1) -> NetworkView:
    """A network of exactly `size` nodes; access nodes are the cities."""
    chance = random.Random(seed)
    count = max(3, size // 3)
    while True:
        places, joined = _cities(count, random.Random(seed))
        spans = {pair: max(1, math.ceil(math.dist(places[pair[0]], places[pair[1]]) / SPAN_KM)) for pair in joined}
        missing = size - count - sum(spans.values()) + len(spans)
        if missing >= 0:
            break
        count -= max(1, -missing // 4)
    for pair in sorted(joined, key=lambda pair: -math.dist(places[pair[0]], places[pair[1]]) / spans[pair])[:missing]:
        spans[pair] += 1
    if (short := size - count - sum(spans.values()) + len(spans)) > 0:
        spans[joined[0]] += short
    nodes = [Node(f"ckms-{number}") for number in range(count)]
    links: list[Link] = []
    for (one, other), parts in spans.items():
        at = nodes[one].id
        km = math.dist(places[one], places[other]) / parts
        for part in range(parts):
            if part == parts - 1:
                onward = nodes[other].id
            else:
                onward = f"ckms-{len(nodes)}"
                nodes.append(Node(onward, access=False))
            links.append(link(f"link-{len(links)}", at, onward, km, chance))
            at = onward
    return NetworkView(tuple(nodes), tuple(links))


def link(identity: str, a: str, b: str, km: float, chance: random.Random) -> Link:
    """A link of a measured rate, whose one stream of keys fills the pools of both directions, in use as it happens."""
    rate = chance.choice(TABLE_3)
    suites = frozenset({"otp", "aes-256-gcm"})
    return Link(
        identity,
        a,
        b,
        suites=suites,
        km=km,
        latency_s=km / 1e5,
        stream=rate,
        ab=_in_use(rate, chance),
        ba=_in_use(rate, chance),
    )


def remeasured(view: NetworkView, share: float, chance: random.Random) -> NetworkView:
    """The next view, after new figures of a share of the links."""
    changes = []
    for one in chance.sample(view.links, round(share * len(view.links))):
        changes.append(replace(one, ab=_in_use(one.ab.rate, chance), ba=_in_use(one.ba.rate, chance)))
    return view.changed(changes)


def _in_use(rate: int, chance: random.Random) -> Direction:
    capacity = POOL_SECONDS * rate
    return Direction(rate, round(chance.random() * capacity), capacity, round(0.4 * chance.random() * rate))


def _cities(count: int, chance: random.Random) -> tuple[list[Point], list[tuple[int, int]]]:
    side = KM_PER_CITY * math.sqrt(count)
    rows = max(1, round(math.sqrt(count / 2)))

    def along(point: Point) -> tuple[int, float]:
        """Row by row, to and fro: the order of the ring."""
        row = int(point[1] / side * rows)
        return row, -point[0] if row % 2 else point[0]

    places = sorted(((chance.random() * side, chance.random() * side) for _ in range(count)), key=along)
    cells: dict[tuple[int, int], list[int]] = {}
    width = 2 * KM_PER_CITY
    for number, (x, y) in enumerate(places):
        cells.setdefault((int(x / width), int(y / width)), []).append(number)
    joined = {
        (min(one, other), max(one, other)) for one, other in zip(range(count), [*range(1, count), 0], strict=True)
    }
    for number, (x, y) in enumerate(places):
        column, row = int(x / width), int(y / width)
        near = [
            other
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            for other in cells.get((column + i, row + j), ())
            if other != number
        ]
        near.sort(key=lambda other: math.dist(places[number], places[other]))
        joined |= {(min(number, other), max(number, other)) for other in near[:NEAREST]}
    return places, sorted(joined)
