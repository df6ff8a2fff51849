"""A group runs what it takes on, says no before and after, and leaves no work behind that never began."""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
from collections.abc import Iterator

import pytest

from keyhaul.runtime.group import Group


class Broken(Exception):
    pass


@pytest.fixture(autouse=True)
def _nothing_never_awaited() -> Iterator[None]:
    """A coroutine that is dropped before it began tells so when it is collected."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert not [warning for warning in caught if "never awaited" in str(warning.message)]


class Work:
    def __init__(self) -> None:
        self.done = 0
        self.go = asyncio.Event()

    async def wait(self) -> None:
        await self.go.wait()
        self.done += 1

    async def fail(self) -> None:
        await self.go.wait()
        raise Broken


async def test_what_it_took_on_is_done_when_it_ends() -> None:
    work = Work()
    async with Group() as group:
        assert group.takes
        task = group.begin(work.wait(), "waiting")
        assert task is not None
        assert task.get_name() == "waiting"
        work.go.set()
    assert work.done == 1


async def test_before_and_after_it_says_no() -> None:
    work, group = Work(), Group()
    assert not group.takes
    assert group.begin(work.wait()) is None
    async with group:
        pass
    assert not group.takes
    late = work.wait()
    assert group.begin(late) is None
    assert inspect.getcoroutinestate(late) == inspect.CORO_CLOSED


async def test_closed_it_says_no_and_goes_on_with_what_it_has() -> None:
    work = Work()
    async with Group() as group:
        group.begin(work.wait())
        group.close()
        assert group.begin(work.wait()) is None
        work.go.set()
    assert work.done == 1


async def test_from_the_moment_a_task_fails_it_says_no() -> None:
    """Asked in every turn of the loop, by somebody who is not one of its tasks."""
    work, group = Work(), Group()
    answers: list[bool] = []

    async def ask() -> None:
        while True:
            answers.append(group.begin(asyncio.Event().wait()) is not None)  # type: ignore[arg-type]
            await asyncio.sleep(0)

    async def own() -> None:
        async with group:
            group.begin(work.fail())
            await asyncio.Event().wait()

    owner, asking = asyncio.create_task(own()), asyncio.create_task(ask())
    await asyncio.sleep(0)
    work.go.set()
    with pytest.raises(ExceptionGroup) as failed:
        await owner
    await asyncio.sleep(0)
    asking.cancel()
    (outcome,) = await asyncio.gather(asking, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError)
    assert failed.group_contains(Broken) if hasattr(failed, "group_contains") else True
    assert answers[0]
    assert not answers[-1]
    assert answers == sorted(answers, reverse=True)


async def test_while_its_tasks_are_being_cancelled_it_says_no() -> None:
    """One that takes its time to end: the group waits for it, and takes nothing on meanwhile."""
    work, group, leaving = Work(), Group(), asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            leaving.set()
            await work.go.wait()

    async def own() -> None:
        async with group:
            group.begin(slow())
            await asyncio.Event().wait()

    owner = asyncio.create_task(own())
    await asyncio.sleep(0.0)
    await asyncio.sleep(0.0)
    owner.cancel()
    await leaving.wait()
    assert group.begin(work.wait()) is None
    work.go.set()
    assert isinstance((await asyncio.gather(owner, return_exceptions=True))[0], asyncio.CancelledError)
