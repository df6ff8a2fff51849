"""Links of one test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.keyhaul.link.pair import Maker, Pair, make_pair, serve


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Maker]:
    """Makes pairs of ends that serve, and stops them."""
    made: list[Pair] = []

    async def make(both: dict[str, Any] | None = None, **b_changes: Any) -> Pair:
        each = make_pair(tmp_path, both, **b_changes)
        made.append(each)
        await each.start()
        serve(each.a)
        serve(each.b)
        return each

    yield make
    for each in made:
        await each.stop()
