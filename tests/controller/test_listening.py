"""The clock of what nodes tell: time in which the controller did not listen does not count."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from controller.listening import BUSY, TURN, Listening


class Hands:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_long_turn_counts_as_a_short_one_from_its_begin_on() -> None:
    hands = Hands()
    listening = Listening(lambda _part: None, clock=hands)
    begin = listening()
    hands.now += 0.2
    assert round(listening() - begin, 6) == 0.2
    hands.now += 60.0
    assert listening() - begin == TURN
    listening.mark()
    assert listening() - begin == TURN
    assert round(listening.missed, 6) == round(60.2 - TURN, 6)
    hands.now += 0.1
    assert round(listening() - begin, 6) == TURN + 0.1


@given(st.lists(st.tuples(st.floats(0, 30), st.booleans())))
def test_it_never_goes_back_and_never_faster_than_time(turns: list[tuple[float, bool]]) -> None:
    hands = Hands()
    listening = Listening(lambda _part: None, clock=hands)
    for passed, marked in turns:
        before, since = listening(), hands.now
        hands.now += passed
        if marked:
            listening.mark()
        assert -1e-9 <= listening() - before <= hands.now - since + 1e-9


def test_who_is_overloaded_says_so_and_nobody_else() -> None:
    hands, said = Hands(), list[float]()
    listening = Listening(said.append, clock=hands)
    for _ in range(100):
        hands.now += 0.9
        listening.mark()
    assert not said
    while not said:
        hands.now += 4 * TURN
        listening.mark()
    assert len(said) == 1
    assert BUSY <= said[0] <= 0.75


async def test_turns_are_marked_while_it_runs() -> None:
    hands = Hands()
    listening = Listening(lambda _part: None, clock=hands)
    task = asyncio.create_task(listening.run())
    hands.now += 60.0
    async with asyncio.timeout(10):
        while not listening.missed:
            await asyncio.sleep(0)
    task.cancel()
    assert listening.missed == 60.0 - TURN
