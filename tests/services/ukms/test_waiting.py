"""Those who wait: in order, those who came back when they were told to before those who were told nothing."""

import pytest

from services.ukms import waiting
from services.ukms.waiting import LONG, BufferFull, Line, Waiting


def one(number: int, since: float, *, promised: bool = False) -> Waiting:
    return Waiting(number, since + 10.0, since, "", promised)


def test_who_came_back_as_told_goes_before_those_who_were_told_nothing() -> None:
    line = Line()
    for who in (one(1, 0.0), one(2, 0.1), one(3, 0.2, promised=True), one(4, 0.3, promised=True), one(5, 0.4)):
        line.join(who)
    assert [who.number for who in line] == [3, 4, 1, 2, 5]
    assert (line.next().number, line.last().number, line.wanted) == (3, 5, 7)
    assert (line.since, line.until) == (0.0, 10.3)


def test_nobody_goes_before_one_who_has_waited_for_long() -> None:
    line = Line()
    line.join(one(1, 0.0))
    line.join(one(2, 1.0))
    line.join(one(3, LONG, promised=True))
    assert [who.number for who in line] == [1, 3, 2]
    assert not line.comes_first(True, LONG)


def test_who_may_take_what_is_at_hand_at_once() -> None:
    line = Line()
    assert line.comes_first(False, 0.0)
    line.join(one(1, 0.0))
    assert line.comes_first(True, 0.1)
    assert not line.comes_first(False, 0.1)
    line.join(one(1, 0.1, promised=True))
    assert not line.comes_first(True, 0.1)


def test_who_did_not_get_his_keys_is_first_again_and_who_gave_up_is_gone() -> None:
    line = Line()
    first, second, third = (one(number, 0.0) for number in (1, 2, 3))
    for who in (first, second, third):
        line.join(who)
    turns = [line.next(), line.next()]
    line.forget(third)
    line.forget(third)
    line.again(turns)
    assert line.clear() == [first, second]
    assert len(line) == 0


def test_so_many_may_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MAXIMUM_WAITING", 2)
    line = Line()
    line.join(one(1, 0.0))
    line.join(one(1, 0.0))
    with pytest.raises(BufferFull):
        line.join(one(1, 0.0, promised=True))
