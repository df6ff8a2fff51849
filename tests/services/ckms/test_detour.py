"""A batch goes around a link that is down where there is a way, and nowhere else."""

from __future__ import annotations

import pytest

from services.ckms.choice import Ready
from services.ckms.detour import onward
from services.ckms.forwarding import Entry, Hop, PathLabel

NEXT = Hop("ckms-3", PathLabel("b" * 16))
DETOUR = Hop("ckms-16", PathLabel("c" * 16))
WITH = Entry(PathLabel("a" * 16), "ckms-1", NEXT, detour=DETOUR)
WITHOUT = Entry(PathLabel("a" * 16), "ckms-1", NEXT)
DELIVER = Entry(PathLabel("a" * 16), "ckms-1", None)


def up(*neighbours: str) -> Ready:
    return lambda neighbour, length: neighbour in neighbours and length == 0


@pytest.mark.parametrize(
    ("entry", "links", "hop"),
    [
        (WITH, ("ckms-3", "ckms-16"), NEXT),
        (WITH, ("ckms-3",), NEXT),
        (WITH, ("ckms-16",), DETOUR),
        (WITH, (), NEXT),
        (WITHOUT, ("ckms-16",), NEXT),
        (DELIVER, (), None),
    ],
)
def test_the_detour_is_for_a_link_that_is_down(entry: Entry, links: tuple[str, ...], hop: Hop | None) -> None:
    assert onward(entry, up(*links)) == hop
