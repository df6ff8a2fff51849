"""Leases: how many keys are set aside, when they go back, and what happens to those that are withdrawn."""

import uuid

from services.ukms import leases
from services.ukms.leases import Lease, Leased, Stored

BATCH = "1" * 32


def stored(number: int, expires: float = 1_000.0, batch: str = BATCH) -> tuple[Stored, ...]:
    return tuple(Stored(uuid.uuid4(), expires, batch, position) for position in range(number))


def filled(number: int, expires: float = 1_000.0) -> Lease:
    lease = Lease()
    coming = stored(number, expires)
    lease.begin(coming)
    lease.land([Leased(one, b"sealed") for one in coming])
    return lease


def test_a_quiet_buffer_has_nothing_set_aside() -> None:
    lease = Lease()
    for second in range(10):
        lease.asked(leases.LEAST - 1, 10.0 * second)
        assert lease.wanted(10.0 * second) == 0


def test_what_is_set_aside_follows_the_demand_of_a_second_and_is_bounded() -> None:
    lease = Lease()
    lease.asked(100, 5.0)
    assert lease.wanted(5.0) == 100
    assert 30 < lease.wanted(6.0) < 50
    lease.asked(100_000, 6.0)
    assert lease.wanted(6.0) == leases.MAXIMUM_LEASED


def test_the_next_keys_are_set_aside_once_half_are_gone_one_transaction_at_a_time() -> None:
    lease = filled(100)
    lease.asked(100, 0.0)
    lease.take(49, 0.0)
    assert lease.wanted(0.0) == 0
    lease.take(1, 0.0)
    assert lease.wanted(0.0) == 50
    lease.begin(stored(50))
    assert lease.wanted(0.0) == 0
    lease.land([])
    assert lease.wanted(0.0) == 50


def test_keys_leave_in_order_and_those_put_back_come_first() -> None:
    lease = filled(4)
    first = lease.take(3, 0.0)
    lease.put_back(first[1:])
    assert lease.take(9, 0.0)[:2] == first[1:]


def test_what_has_expired_is_not_handed_out_but_goes_back() -> None:
    lease = filled(3, expires=10.0)
    lease.asked(3, 10.0)
    assert lease.take(2, 10.0) == ()
    assert len(lease.surplus(10.0)) == 3
    assert lease.empty


def test_what_nobody_asks_for_goes_back() -> None:
    lease = filled(3)
    lease.asked(1, 0.0)
    assert lease.surplus(leases.IDLE) == []
    assert len(lease.surplus(leases.IDLE + 0.1)) == 3
    assert lease.empty


def test_withheld_keys_are_not_handed_out_wherever_they_are() -> None:
    lease = filled(4)
    in_hand = lease.take(2, 0.0)
    lease.keep_in_hand(in_hand)
    coming = stored(2)
    lease.begin(coming)
    gone = {in_hand[0].stored.key_id, coming[0].key_id}
    (kept,) = [one.stored for one in lease.take(1, 0.0)]
    found = lease.withhold(lambda one: one.key_id in gone or one.position == 3)
    assert [one.stored.position for one in found] == [3]
    lease.put_back(in_hand)
    lease.land([Leased(one, b"sealed") for one in coming])
    left = [one.stored.key_id for one in lease.take(9, 0.0)]
    assert left == [in_hand[1].stored.key_id, coming[1].key_id]
    assert kept.position == 2


def test_a_key_that_was_given_is_forgotten() -> None:
    lease = filled(1)
    taken = lease.take(1, 0.0)
    lease.keep_in_hand(taken)
    lease.withhold(lambda _one: True)
    lease.gave(taken)
    lease.put_back(taken)
    assert len(lease) == 1


def test_no_bits_are_shown() -> None:
    assert "sealed" not in repr(Leased(stored(1)[0], b"sealed"))
