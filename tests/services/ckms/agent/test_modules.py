"""What QKD modules are asked, when, and what is made of their answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from keyhaul.keys.etsi014 import Status
from keyhaul.transport.etsi014 import Etsi014Error, Etsi014Unreachable
from services.ckms.agent.modules import IDLE, LOOK, Modules, Watched


class FakeModule:
    """A module with a store that grows."""

    def __init__(self) -> None:
        self.asked = 0
        self.stored = 100
        self.extension: Any = msgspec.UNSET
        self.failure: Exception | None = None

    async def status(self, slave: str, *, deadline: float) -> Status:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return Status("a", "b", "here", slave, 256, self.stored, 10_000, 128, 256, 256, 0, self.extension)

    async def get_key(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("who watches takes no keys")

    get_key_with_ids = get_key


class Watch:
    """Modules under a clock of their own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.wanted = True
        self.taken = 0
        self.module = FakeModule()
        watched = Watched(self.module, "ckms-9", 2_000.0, lambda: self.taken)
        self.each: Callable[[], None] = lambda: None
        self.left = 0
        self.modules = Modules({"8-9": watched}, lambda: self.wanted, clock=lambda: self.now, pause=self._pause)

    async def _pause(self, seconds: float) -> None:
        self.now += seconds
        self.left -= 1
        if not self.left:
            raise asyncio.CancelledError
        self.each()

    async def go(self, looks: int) -> None:
        self.left = looks
        with pytest.raises(asyncio.CancelledError):
            await self.modules.run()


async def test_a_module_that_tells_is_believed() -> None:
    watch = Watch()
    watch.module.extension = {"secret_key_rate": 312.5, "qber": 0.0213, "more": []}
    await watch.go(1)
    assert (watch.modules.rate("8-9"), watch.modules.qber("8-9"), watch.modules.answers("8-9")) == (312, 0.0213, True)


@pytest.mark.parametrize("nonsense", [-1, True, "0.02", None, math.nan, math.inf, 10**400], ids=lambda it: str(it)[:6])
async def test_nonsense_is_as_good_as_nothing(nonsense: Any) -> None:
    watch = Watch()
    watch.module.extension = {"secret_key_rate": nonsense, "qber": nonsense}
    await watch.go(1)
    assert (watch.modules.rate("8-9"), watch.modules.qber("8-9")) == (2_000, None)


async def test_what_became_pad_counts_as_made() -> None:
    watch = Watch()

    def grow() -> None:
        watch.module.stored += 2
        watch.taken += 3 * 32

    watch.each = grow
    await watch.go(600)
    assert watch.modules.rate("8-9") == pytest.approx(5 * 256 / LOOK, rel=0.01)
    assert watch.modules.qber("8-9") is None


@pytest.mark.parametrize("failure", [Etsi014Error(503, "later", None), Etsi014Unreachable("away")])
async def test_a_module_that_is_away_yields_nothing_and_its_last_word_is_forgotten(failure: Exception) -> None:
    watch = Watch()
    watch.module.extension = {"secret_key_rate": 312.5, "qber": 0.0213}
    await watch.go(1)
    watch.module.failure = failure
    await watch.go(600)
    assert (watch.modules.rate("8-9"), watch.modules.qber("8-9"), watch.modules.answers("8-9")) == (0, None, False)


async def test_while_nobody_is_told_modules_are_seldom_asked() -> None:
    watch = Watch()
    watch.wanted = False
    await watch.go(round(4 * IDLE / LOOK))
    assert watch.module.asked == 4
