"""Whose turn it is to be talked to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.steering.conversation import Conversation, Phase
from controller.steering.turns import GREETED_AT_ONCE, Turns

Nodes = list[Conversation]


def nodes(number: int, *, unready: bool = False) -> Nodes:
    return [Conversation(f"ckms-{one}", Phase.DOUBTED, unready=unready) for one in range(number)]


def begin(turns: Turns, now: float) -> Nodes:
    """Let all go on that can, and are to be greeted; something is under way with each then."""
    due = []
    for number, talk in enumerate(turns.due(now)):
        if talk.phase is not Phase.READY:
            talk.busy = number
            due.append(talk)
    return due


def answer(turns: Turns, talk: Conversation) -> None:
    """It was announced to and read, and answered."""
    talk.busy = None
    turns.stir(talk)
    if talk.phase is Phase.DOUBTED:
        talk.phase = Phase.ANNOUNCED
    else:
        turns.greeted(talk)
        talk.phase = Phase.READY


def test_some_are_greeted_at_a_time_and_all_of_them_in_the_end() -> None:
    turns, all_of_them = Turns(), nodes(3 * GREETED_AT_ONCE + 1)
    turns.restart(all_of_them)
    greeted: Nodes = []
    while due := begin(turns, 0.0):
        assert sum(talk.busy is not None for talk in all_of_them) <= GREETED_AT_ONCE
        greeted += due
        for talk in due:
            answer(turns, talk)
    assert all(talk.phase is Phase.READY for talk in all_of_them)
    assert len(greeted) == 2 * len(all_of_them), "each is announced to once, and read once"


def test_nodes_that_do_not_answer_take_no_turn_from_those_that_do() -> None:
    turns, mute = Turns(), nodes(2 * GREETED_AT_ONCE, unready=True)
    turns.restart(mute)
    assert len(begin(turns, 0.0)) == GREETED_AT_ONCE
    fresh = Conversation("ckms-new", Phase.DOUBTED)
    turns.stir(fresh)
    assert begin(turns, 0.0) == [fresh]
    turns.gone(mute[0])
    assert begin(turns, 0.0) == [mute[GREETED_AT_ONCE]]


def test_who_pauses_is_looked_at_when_that_is_over_or_it_is_stirred() -> None:
    turns, (talk,) = Turns(), nodes(1)
    talk.retry_at = 5.0
    turns.restart([talk])
    for _ in range(3):
        turns.stir(talk)
        assert begin(turns, 4.0) == []
    assert begin(turns, 5.0) == [talk]
    talk.busy = None
    assert begin(turns, 9.0) == [], "nothing has happened since"
    turns.stir(talk)
    assert begin(turns, 9.0) == [talk]


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["stir", "pause", "answer", "gone"])), max_size=60))
def test_nobody_is_forgotten(steps: list[tuple[int, str]]) -> None:
    turns, all_of_them = Turns(), nodes(10)
    turns.restart(all_of_them)
    there = dict(enumerate(all_of_them))
    for now, (number, what) in enumerate(steps):
        talk = there.get(number)
        if talk is None:
            continue
        if what == "gone":
            turns.gone(there.pop(number))
        elif what == "stir":
            turns.stir(talk)
        elif talk.busy is not None and what == "answer":
            answer(turns, talk)
        elif talk.busy is not None:
            turns.greeted(talk)
            talk.busy, talk.phase, talk.unready, talk.retry_at = None, Phase.DOUBTED, True, now + 3.0
            turns.stir(talk)
        assert all(one in there.values() for one in begin(turns, float(now)))
    for talk in there.values():
        if talk.busy is not None:
            answer(turns, talk)
    end = len(steps) + 10.0
    while due := begin(turns, end):
        for talk in due:
            answer(turns, talk)
    assert all(talk.phase is Phase.READY for talk in there.values())
