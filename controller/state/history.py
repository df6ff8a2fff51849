"""The history of link measurements in the database: minutes as they come, hours and days rolled up from them.

Every write replaces rows of known keys, so that doing it twice, after an unknown outcome, is doing it once. A minute
has a row of each leader that measured in it, by its epoch, so that a new leader adds to the minute in which the last
one died instead of replacing it. An hour is made when all its minutes are settled, link by link; only then the mark
moves beyond it, and only what lies before the mark is ever deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, delete, func, select, tuple_

from controller.state import schema
from controller.state.clock import wall
from controller.state.counters import move, value
from controller.state.leading import Leadership
from controller.state.rollup import DAY, FIGURES, HOUR, MINUTE, Key, Recorder, Sample, Summary, figures, roll, starts
from controller.state.schema import measurements
from keyhaul.database.rows import replace_rows

PORTION = 500
"""Rows of one transaction."""

LINKS = 50
"""Links whose minutes are rolled up in one transaction."""

_MARKS = {HOUR: (schema.HOUR, MINUTE), DAY: (schema.DAY, HOUR)}
"""The counter that says up to when a level is made, and the level that it is made from."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rows are kept, seconds."""

    minutes: int = 2 * DAY
    hours: int = 90 * DAY
    days: int = 3_650 * DAY


def write(connection: Connection, level: int, writer: int, rows: Mapping[Key, Summary]) -> None:
    """Write rows over those that are there."""
    replace_rows(
        connection,
        measurements,
        [
            {"level": level, "link": key.link, "sender": key.sender, "start": key.start, "writer": writer}
            | {name: getattr(summary, name) for name in FIGURES}
            for key, summary in rows.items()
        ],
    )


def read(connection: Connection, level: int, link: str, sender: str, begin: int, until: int) -> dict[int, Summary]:
    """Summaries of a direction by their start, those that start from `begin` and before `until`."""
    table = measurements.c
    which = (table.level == level) & (table.link == link) & (table.sender == sender)
    found = connection.execute(
        select(measurements).where(which & (table.start >= begin) & (table.start < until)).order_by(table.start)
    )
    return {key.start: summary for key, summary in roll(_rows(found), level).items()}


def latest(connection: Connection, level: int, link: str, senders: Iterable[str], count: int) -> dict[Key, Summary]:
    """The summaries of the last so many minutes, hours or days, the present one included, by start and sender."""
    until = starts(wall(connection), level) + level
    found = {
        Key(link, sender, start): summary
        for sender in senders
        for start, summary in read(connection, level, link, sender, until - count * level, until).items()
    }
    return dict(sorted(found.items(), key=lambda one: (one[0].start, one[0].sender)))


def since(connection: Connection) -> float:
    """From when a new recorder may take samples: now, or where hours are made up to if that is later."""
    return max(wall(connection), float(value(connection, schema.HOUR)))


def next_to_roll(connection: Connection, level: int, settled: int) -> int | None:
    """The start of the oldest hour or day that can be made, None where there is none."""
    mark, below = _MARKS[level]
    table = measurements.c
    first = select(func.min(table.start)).where((table.level == below) & (table.start >= value(connection, mark)))
    start = connection.execute(first).scalar_one()
    if level == DAY:
        settled = min(settled, value(connection, schema.HOUR))
    return starts(start, level) if start is not None and starts(start, level) + level <= settled else None


def roll_links(connection: Connection, level: int, start: int, beyond: str) -> str | None:
    """Make an hour or day of the next links, in the order of their ids.

    Returns:
        The last link done, from which the next call goes on; None after the last of all, when the mark moves.
    """
    mark, below = _MARKS[level]
    table = measurements.c
    links: list[str] = []
    while len(links) < LINKS:  # one look into the index for each: to list them all would read every row
        after = select(func.min(table.link)).where((table.level == below) & (table.link > beyond))
        if (following := connection.execute(after).scalar_one()) is None:
            break
        beyond = following
        links.append(beyond)
    if not links:
        move(connection, mark, start + level)
        return None
    within = (table.level == below) & (table.start >= start) & (table.start < start + level)
    found = connection.execute(select(measurements).where(within & table.link.in_(links)))
    write(connection, level, 0, roll(_rows(found), level))
    return beyond


def purge(connection: Connection, retention: Retention) -> int:
    """Delete a portion of what is older than is to be kept; return how many rows, 0: nothing is left to do."""
    now, table = wall(connection), measurements.c
    keys = list(measurements.primary_key)
    for level, keep, made in (
        (MINUTE, retention.minutes, value(connection, schema.HOUR)),
        (HOUR, retention.hours, value(connection, schema.DAY)),
        (DAY, retention.days, int(now)),
    ):
        old = (table.level == level) & (table.start < min(now - keep, made))
        portion = select(*keys).where(old).limit(PORTION)
        if deleted := connection.execute(delete(measurements).where(tuple_(*keys).in_(portion))).rowcount:
            return deleted
    return 0


def _rows(found: Iterable[object]) -> Iterable[tuple[Key, Summary]]:
    for row in found:
        yield Key(row.link, row.sender, row.start), figures(row)  # type: ignore[attr-defined]


class History:
    """One leader's measurements, from its samples to the database. Made by `begin`, for one epoch."""

    def __init__(self, leadership: Leadership, epoch: int, at: float, monotonic: float, retention: Retention) -> None:
        self._leadership = leadership
        self._epoch = epoch
        self._offset = at - monotonic
        self._retention = retention
        self._recorder = Recorder(at)
        self._rolling = (0, 0, "")  # level, start and last link of the hour or day that is being made

    @classmethod
    async def begin(
        cls, leadership: Leadership, epoch: int, monotonic: float, retention: Retention | None = None
    ) -> History:
        """Begin where the history has come to.

        Args:
            leadership: which writes.
            epoch: of it.
            monotonic: now, seconds by the clock of later samples; the database's clock is asked only here.
            retention: how long rows are kept.

        Raises:
            NotLeading, DatabaseUnavailable: see `Leadership.transact`.
        """
        at = await leadership.transact(since)
        return cls(leadership, epoch, at, monotonic, retention or Retention())

    def add(self, measured: Iterable[Sample], monotonic: float) -> None:
        """Take samples of one moment."""
        self._recorder.add(measured, self._offset + monotonic)

    async def flush(self) -> int:
        """Write what changed; return how many rows. What was added between two calls is lost if the process dies.

        Raises:
            NotLeading, DatabaseUnavailable: see `Leadership.transact`; what was not written is by the next call.
        """
        rows = 0
        while portion := self._recorder.portion(PORTION):
            await self._leadership.transact(partial(write, level=MINUTE, writer=self._epoch, rows=portion))
            self._recorder.written(portion)
            rows += len(portion)
        return rows

    async def roll_up(self) -> None:
        """Make all hours and days that can be made, then delete what is old.

        Raises:
            NotLeading, DatabaseUnavailable: see `Leadership.transact`; the next call goes on.
        """
        for level in (HOUR, DAY):
            await self._roll_up(level, self._recorder.settled)
        while await self._leadership.transact(partial(purge, retention=self._retention)):
            continue

    async def _roll_up(self, level: int, settled: int) -> None:
        transact = self._leadership.transact
        while (start := await transact(partial(next_to_roll, level=level, settled=settled))) is not None:
            if self._rolling[:2] != (level, start):
                self._rolling = level, start, ""
            while self._rolling[:2] == (level, start):
                done = await transact(partial(roll_links, level=level, start=start, beyond=self._rolling[2]))
                self._rolling = (level, start, done) if done is not None else (0, 0, "")
