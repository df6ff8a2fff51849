"""Keeps the history of link measurements while this controller leads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from controller.rhythm import Rhythm
from controller.state.history import History
from controller.state.leading import Leadership, NotLeading
from controller.state.rollup import samples
from controller.topology import Discovery
from keyhaul.database.errors import DatabaseUnavailable

log = structlog.get_logger(__name__)

SAMPLE = 1.0
FLUSH = 15.0
ROLL = 60.0
"""Seconds between samples in a small network, between writes of the minutes, and between looks for hours and days that
are complete."""


async def record(
    leadership: Leadership,
    epoch: int,
    discovery: Callable[[], Discovery | None],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Record until cancelled, or until another controller leads. What the database does not take now, it gets later; at
    the end it gets what there is.
    """
    history: History | None = None
    flush = roll = clock()
    try:
        while True:
            found = discovery()
            await asyncio.sleep(SAMPLE if found is None else SAMPLE * Rhythm.of(len(found.planned.nodes)).stretch)
            now = clock()
            try:
                if history is None:
                    history = await History.begin(leadership, epoch, now)
                if (found := discovery()) is not None:
                    history.add(samples(found), now)
                if now - flush >= FLUSH:
                    flush = now
                    await history.flush()
                if now - roll >= ROLL:
                    roll = now
                    await history.roll_up()
            except DatabaseUnavailable as error:
                log.warning("measurements were not written yet", why=str(error))
    except NotLeading:
        return
    finally:
        if history is not None:
            with suppress(NotLeading, DatabaseUnavailable):
                await history.flush()
