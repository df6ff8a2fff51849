"""An event loop whose time jumps to the next timer, whose order is drawn by seed, and whose processes can die at once.

Everything that runs belongs to a `Life`, one run of one process, by its context. What belongs to a life that ended is
never stepped again: no `finally`, no `except`, just as in a process that was killed.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar, cast

Result = TypeVar("Result")

THREAD = 0.003
"""Seconds that work in a thread takes at most."""

STEPS_WITHOUT_TIME = 200_000
"""More steps than this at one instant are taken for a loop that never ends."""


class Stalled(Exception):
    """Nothing is left that could happen, or what happens takes no time for ever."""


class Died(Exception):
    """The process that was asked is gone; whether it did what was asked is unknown."""


class Life:
    """One run of one process."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.alive = True
        self.frozen = False
        """Whether it stands still."""
        self.held: list[Any] = []
        """What would have run meanwhile."""
        self.context = contextvars.copy_context()
        self.context.run(_LIFE.set, self)
        self._asked: dict[asyncio.Future[Any], None] = {}
        self.tasks: set[asyncio.Task[Any]] = set()
        """What runs, or ran when it ended: nobody else may hold it, and it must not be collected half done."""

    def end(self) -> None:
        """Stop at once; whoever waits for an answer hears that the connection is gone."""
        self.alive = False
        for future in list(self._asked):
            if not future.done():
                future.set_exception(Died(self.service))
        self._asked.clear()

    def ask(self, work: Coroutine[Any, Any, Result]) -> asyncio.Future[Result]:
        """Run work in this life; its result comes to whoever asked, unless the life ends before."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        if not self.alive:
            work.close()
            future.set_exception(Died(self.service))
            return future
        task = loop.create_task(work, context=self.context)
        self._asked[future] = None

        def done(task: asyncio.Task[Result]) -> None:
            self._asked.pop(future, None)
            if future.done():
                return
            if task.cancelled():
                future.cancel()
            elif (error := task.exception()) is not None:
                future.set_exception(error)
            else:
                future.set_result(task.result())

        task.add_done_callback(done, context=OUTSIDE)
        future.add_done_callback(lambda future: future.cancelled() and task.cancel(), context=OUTSIDE)
        return future


_LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)

OUTSIDE = contextvars.Context()
"""The context of what happens between processes."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """Time is a number; nothing is waited for."""

    def __init__(self, chance: Random) -> None:
        super().__init__()
        self._chance = chance
        self._now = 1_000.0
        self._since = 0
        self._numbers = 0
        self.steps = 0
        """Callbacks run."""
        self.reviving = False
        self.strike_at: int | None = None
        """At this step or the next of a life `strike` is told of that life, before it."""
        self.strike: Callable[[Life], None] = lambda life: None
        self._dropped: list[Any] = []
        self.set_exception_handler(lambda loop, context: None)
        self.set_task_factory(_task)

    def thaw(self, life: Life) -> None:
        """Let a life that stood still go on."""
        life.frozen = False
        cast(Any, self)._ready.extend(life.held)
        life.held.clear()

    def revive(self) -> None:
        """Let what belongs to ended lives run again, so that it can be cleaned up."""
        self.reviving = True
        cast(Any, self)._ready.extend(self._dropped)
        self._dropped.clear()

    def next_number(self) -> int:
        """The number of the next task or future."""
        self._numbers += 1
        return self._numbers

    def create_future(self) -> asyncio.Future[Any]:
        """See `AbstractEventLoop`."""
        return _Future(self.next_number(), loop=self)

    def time(self) -> float:
        """Seconds; simulated."""
        return self._now

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """See `AbstractEventLoop`: the thread takes a while, and is a step of the process like any other."""
        done = self.create_future()

        def work() -> None:
            if done.cancelled():
                return
            try:
                done.set_result(func(*args))
            except Exception as error:
                done.set_exception(error)

        self.call_later(self._chance.uniform(0.0001, THREAD), work)
        return done

    def _run_once(self) -> None:
        this = cast(Any, self)
        ready, scheduled = this._ready, this._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not ready and not this._stopping:
            if not scheduled:
                raise Stalled("nothing is left to happen")
            if scheduled[0].when() > self._now:
                self._now = scheduled[0].when()
                self._since = self.steps
        while scheduled and scheduled[0].when() <= self._now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        batch = self._shuffled(list(ready))
        ready.clear()
        for handle in batch:
            if handle._cancelled:
                continue
            life = handle._context.get(_LIFE)
            if life is not None and not self.reviving:
                if self.strike_at is not None and self.steps >= self.strike_at and life.alive:
                    self.strike(life)
                if not life.alive:
                    self._dropped.append(handle)
                    continue
                if life.frozen:
                    life.held.append(handle)
                    continue
            self.steps += 1
            handle._run()
        if self.steps - self._since > STEPS_WITHOUT_TIME:
            raise Stalled(f"{STEPS_WITHOUT_TIME} steps took no time")

    def _shuffled(self, batch: list[Any]) -> list[Any]:
        """Tasks that could go on are taken in any order; plain callbacks keep theirs, as asyncio promises."""
        if len(batch) < 2:
            return batch
        numbers = [_number(handle) for handle in batch]
        places = [place for place, number in enumerate(numbers) if number]
        if len(places) > 1:
            # In the order of their making first: a set of tasks has another order in every run.
            moved = sorted(places, key=lambda place: numbers[place])
            self._chance.shuffle(moved)
            for place, handle in zip(places, [batch[place] for place in moved], strict=True):
                batch[place] = handle
        return batch

    def _write_to_self(self) -> None:
        return None

    def _process_events(self, event_list: Any) -> None:
        return None

    def close(self) -> None:
        """Close; nothing was opened."""
        super().close()


class _Task(asyncio.Task[Any]):
    """A task with a number, by which sets of tasks have the same order in every run."""

    def __init__(self, work: Any, number: int, **options: Any) -> None:
        self.number = number
        super().__init__(work, **options)

    def __hash__(self) -> int:
        return self.number


class _Future(asyncio.Future[Any]):
    """A future with a number."""

    def __init__(self, number: int, **options: Any) -> None:
        self.number = number
        super().__init__(**options)

    def __hash__(self) -> int:
        return self.number


def _task(loop: asyncio.AbstractEventLoop, work: Any, context: contextvars.Context | None = None) -> asyncio.Task[Any]:
    task = _Task(work, cast(SimulatedLoop, loop).next_number(), loop=loop, context=context)
    life = (context or contextvars.copy_context()).get(_LIFE)
    if life is not None:
        life.tasks.add(task)
        task.add_done_callback(life.tasks.discard)
    return task


def _number(handle: Any) -> int:
    """The number of the task that this steps or wakes; 0 where it is no task."""
    owner = getattr(handle._callback, "__self__", None)
    return owner.number if isinstance(owner, _Task) else 0
