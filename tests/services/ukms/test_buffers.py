"""All buffers: bounded in number, and found by master and slaves."""

import pytest

from keyhaul.identity.names import SaeId
from services.ukms import buffers, waiting
from services.ukms.buffer import BufferKey, Policy
from services.ukms.buffers import Buffers
from services.ukms.waiting import BufferFull

KEY = BufferKey(SaeId("a"), frozenset({SaeId("b")}), 256, "silver")
SLAVES = (SaeId("b"),)
NONE_AHEAD = Policy(minimum=0, maximum=0, horizon=4.0)


def test_waiting_requests_and_buffers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MAXIMUM_WAITING", 2)
    monkeypatch.setattr(buffers, "MAXIMUM_BUFFERS", 2)
    several = Buffers(NONE_AHEAD)
    buffer = several.buffer(KEY, SLAVES, 0.0)
    buffer.wait(1, 1.0)
    buffer.wait(1, 1.0)
    with pytest.raises(BufferFull):
        buffer.wait(1, 1.0)
    other = BufferKey(SaeId("a"), frozenset({SaeId("c")}), 256, "silver")
    third = BufferKey(SaeId("a"), frozenset({SaeId("c")}), 128, "silver")
    several.buffer(other, SLAVES, 0.0)
    with pytest.raises(BufferFull):
        several.buffer(third, SLAVES, 1.0)
    assert several.buffer(third, SLAVES, 100.0).key == third
    assert several.find(other) is None


def test_buffers_are_found_by_any_of_their_slaves() -> None:
    several = Buffers(NONE_AHEAD)
    both = BufferKey(SaeId("a"), frozenset({SaeId("b"), SaeId("c")}), 256, "silver")
    several.buffer(KEY, SLAVES, 0.0)
    several.buffer(both, SLAVES, 0.0)
    several.buffer(BufferKey(SaeId("z"), frozenset({SaeId("c")}), 256, "silver"), SLAVES, 0.0)
    assert [one.key for one in several.of(SaeId("a"), frozenset({SaeId("c")}))] == [both]
    assert [one.key for one in several.of(SaeId("a"), frozenset())] == [KEY, both]
