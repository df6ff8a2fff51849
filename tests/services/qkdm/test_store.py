from __future__ import annotations

from uuid import UUID

import pytest

from keyhaul.keys.material import KeyMaterial
from services.qkdm.store import HeldKey, Pool, Store


def key(number: int) -> HeldKey:
    return HeldKey(UUID(int=number), KeyMaterial(bytes([number]) * 4))


def test_overflow_drops_and_wipes_the_oldest() -> None:
    pool = Pool(3)
    keys = [key(number) for number in range(1, 6)]
    assert pool.add(keys) == 2
    assert pool.ids() == {keys[2].id, keys[3].id, keys[4].id}
    assert keys[0].material.reveal() == bytes(4)
    assert keys[2].material.reveal() != bytes(4)


def test_keys_leave_oldest_first_all_or_none() -> None:
    pool = Pool(10)
    pool.add(key(number) for number in range(1, 4))
    assert pool.take_oldest(4) is None
    taken = pool.take_oldest(2)
    assert taken is not None
    assert [one.id.int for one in taken] == [1, 2]
    assert len(pool) == 1


def test_keys_are_taken_by_id_once_all_or_none() -> None:
    pool = Pool(10)
    pool.add(key(number) for number in range(1, 4))
    assert pool.take([UUID(int=1), UUID(int=9)]) is None
    assert pool.take([UUID(int=1), UUID(int=1)]) is None
    assert len(pool) == 3
    assert pool.take([UUID(int=3), UUID(int=1)]) is not None
    assert pool.take([UUID(int=1)]) is None


def test_an_id_is_stored_once() -> None:
    pool = Pool(10)
    pool.add([key(1)])
    with pytest.raises(ValueError):
        pool.add([key(1)])


def test_clearing_wipes() -> None:
    store = Store(100)
    one, two = key(1), key(2)
    store.own.add([one])
    store.peer.add([two])
    assert store.clear() == 2
    assert one.material.reveal() == two.material.reveal() == bytes(4)


def test_a_full_end_leaves_room_for_keys_being_fetched() -> None:
    store = Store(1_000)
    assert store.own.capacity < store.peer.capacity
    assert store.own.capacity + store.peer.capacity <= 1_000
