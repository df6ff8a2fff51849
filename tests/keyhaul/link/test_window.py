from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhaul.link.window import WINDOW_SIZE, Replayed, ReplayWindow

NUMBERS = st.one_of(st.integers(-3, 50), st.integers(WINDOW_SIZE - 5, WINDOW_SIZE + 5), st.integers(0, 4 * WINDOW_SIZE))


@given(st.lists(NUMBERS, max_size=200))
def test_a_number_is_accepted_once_and_never_when_too_old(numbers: list[int]) -> None:
    window = ReplayWindow()
    accepted: set[int] = set()
    for number in numbers:
        fine = number >= 0 and number not in accepted and number > max(accepted, default=-1) - WINDOW_SIZE
        if fine:
            window.check(number)
            window.accept(number)
            accepted.add(number)
        else:
            with pytest.raises(Replayed):
                window.check(number)
            with pytest.raises(Replayed):
                window.accept(number)


def test_any_order_within_the_window_is_accepted() -> None:
    window = ReplayWindow()
    for number in [*range(WINDOW_SIZE - 1, -1, -1)]:
        window.accept(number)
    window.accept(WINDOW_SIZE)
    with pytest.raises(Replayed):
        window.check(0)


def test_a_great_leap_forgets_everything_before() -> None:
    window = ReplayWindow()
    window.accept(5)
    window.accept(2**63)
    with pytest.raises(Replayed):
        window.check(6)
    window.accept(2**63 - 1)
