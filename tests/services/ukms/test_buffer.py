"""A buffer: who gets which keys, in which order."""

import uuid

from keyhaul.identity.names import SaeId
from services.ukms.buffer import Buffer, BufferKey, Policy, Taken
from services.ukms.buffers import Buffers
from services.ukms.leases import Stored

KEY = BufferKey(SaeId("a"), frozenset({SaeId("b")}), 256, "silver")
SLAVES = (SaeId("b"),)
NONE_AHEAD = Policy(minimum=0, maximum=0, horizon=4.0)


def make(policy: Policy = NONE_AHEAD, limit: int = 1000) -> Buffer:
    buffer = Buffers(policy).buffer(KEY, SLAVES, 0.0)
    buffer.stored_limit = limit
    return buffer


def keys(number: int, expires: float = 1000.0) -> list[Stored]:
    return [Stored(uuid.uuid4(), expires, "1" * 32, position) for position in range(number)]


def test_keys_leave_in_order_all_or_none() -> None:
    buffer = make()
    three = keys(3)
    buffer.put(three)
    assert buffer.take(4, 0.0) is None
    assert buffer.take(2, 0.0) == Taken((), tuple(three[:2]))
    assert buffer.stored == 1


def test_an_expired_key_is_not_taken() -> None:
    buffer = make()
    buffer.put(keys(1, expires=10.0))
    assert buffer.take(1, 10.0) is None


def test_nobody_overtakes_those_who_wait() -> None:
    buffer = make()
    buffer.wait(5, 10.0)
    buffer.put(keys(2))
    assert buffer.take(1, 0.0) is None


def test_arriving_keys_go_to_the_first_who_waits_together_with_what_is_there() -> None:
    buffer = make()
    old, new = keys(1), keys(3)
    buffer.put(old)
    first, second = buffer.wait(2, 10.0), buffer.wait(5, 10.0)
    allotments, rest = buffer.allot(new, 0.0)
    assert [(one.waiting, one.keys) for one in allotments] == [(first, (old[0], new[0]))]
    assert rest == new[1:]
    assert buffer.fail_all() == [second]


def test_the_last_come_fail_when_less_comes_than_was_wanted() -> None:
    buffer = make()
    first, second = buffer.wait(2, 10.0), buffer.wait(2, 10.0)
    buffer.put(keys(3))
    assert buffer.fail_unserved() == [second]
    assert buffer.fail_all() == [first]
