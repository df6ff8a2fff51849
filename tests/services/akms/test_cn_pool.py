"""Pools of CN bits: each byte once, the same at both ends, levels that follow demand."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhaul.config.services import PoolSection
from keyhaul.transport.messages.peer import CnRange
from services.akms.cn_batch import CnBatch, UsedBits
from services.akms.cn_path import FIRST_PATIENCE
from services.akms.cn_pool import LONGEST_WAIT, LOST_SECONDS, SHORTEST_WAIT, MakerPool
from services.akms.cn_store import LONELY_SECONDS, CnStore, RefusedBatch, UnknownBits

SETTINGS = PoolSection(minimum=512, maximum=8192, horizon=4.0, batches=[512, 4096])


def pool_with(settings: PoolSection = SETTINGS, seed: int = 1) -> MakerPool:
    return MakerPool("gold", settings, random.Random(seed).randbytes, 0.0)


def bring(pool: MakerPool, store: CnStore, batch: CnBatch, now: float = 0.0) -> None:
    """Announce, deliver and confirm one batch."""
    store.announce("akms-2", batch.name, len(batch.bits), "gold", now)
    arrived = store.deliver(batch.name, batch.bits.reveal(), now)
    assert arrived is not None
    assert pool.confirm(batch.name, arrived.check, now)
    store.confirmed("akms-2", batch.name)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=20), st.integers(0, 1000))
def test_every_byte_is_used_once_and_is_the_same_at_both_ends(requests: list[int], seed: int) -> None:
    pool, store = pool_with(seed=seed), CnStore()
    used: set[tuple[str, int]] = set()
    transfers = []
    for count in requests:
        ticket = pool.ask(count, 0.0)
        for batch in pool.plan(0.0):
            bring(pool, store, batch)
        served = dict(pool.serve(0.0))
        taken = served[ticket]
        assert len(taken.bits) == count
        places = {(part.batch, part.offset + index) for part in taken.ranges for index in range(part.length)}
        assert len(places) == count
        assert not places & used
        assert all(offset >= 32 for _, offset in places)
        used |= places
        transfers.append(taken)
    random.Random(seed).shuffle(transfers)
    for taken in transfers:
        assert store.take("akms-2", "gold", taken.ranges) == taken.bits
        with pytest.raises((UnknownBits, UsedBits)):
            store.take("akms-2", "gold", taken.ranges)


def test_swapped_bits_are_burned_at_both_ends() -> None:
    pool, store = pool_with(), CnStore()
    pool.ask(100, 0.0)
    (batch, *_) = pool.plan(0.0)
    swapped = bytearray(batch.bits.reveal())
    swapped[-1] ^= 1
    store.announce("akms-2", batch.name, len(swapped), "gold", 0.0)
    arrived = store.deliver(batch.name, bytes(swapped), 0.0)
    assert arrived is not None
    assert pool.confirm(batch.name, arrived.check, 0.0) is False
    assert not pool.available
    assert batch.bits.reveal() == bytes(len(batch.bits))
    assert pool.confirm(batch.name, arrived.check, 0.0) is None


def test_unconfirmed_bits_are_not_handed_out() -> None:
    pool, store = pool_with(), CnStore()
    pool.ask(100, 0.0)
    (batch, *_) = pool.plan(0.0)
    assert not pool.serve(0.0)
    store.announce("akms-2", batch.name, len(batch.bits), "gold", 0.0)
    store.deliver(batch.name, batch.bits.reveal(), 0.0)
    with pytest.raises(UnknownBits):
        store.take("akms-2", "gold", [CnRange(batch.name, 32, 10)])


def test_a_take_is_all_or_nothing() -> None:
    pool, store = pool_with(), CnStore()
    pool.ask(100, 0.0)
    (batch, *_) = pool.plan(0.0)
    bring(pool, store, batch)
    for bad in (
        CnRange(batch.name, 0, 32),
        CnRange(batch.name, 40, 10_000),
        CnRange(batch.name, 32, 0),
        CnRange(batch.name, 41, 10),
        CnRange(batch.name, 32, -5),
    ):
        with pytest.raises(UsedBits):
            store.take("akms-2", "gold", [CnRange(batch.name, 32, 10), bad])
    with pytest.raises(UsedBits):
        store.take("akms-2", "silver", [CnRange(batch.name, 32, 10)])
    with pytest.raises(UnknownBits):
        store.take("akms-3", "gold", [CnRange(batch.name, 32, 10)])
    assert len(store.take("akms-2", "gold", [CnRange(batch.name, 32, 10)])) == 10


def test_the_level_follows_demand_within_bounds() -> None:
    pool = pool_with()
    assert pool.target(0.0) == 512
    for second in range(20):
        pool.forget(pool.ask(1000, float(second)))
    assert 2000 < pool.target(19.0) <= 4096
    for second in range(20, 40):
        pool.forget(pool.ask(100_000, float(second)))
    assert pool.target(39.0) == 8192
    assert pool.target(400.0) == 512


def test_without_levels_only_what_is_needed_is_made_and_nothing_kept() -> None:
    pool, store = pool_with(PoolSection(minimum=0, maximum=0, batches=[512, 4096])), CnStore()
    assert not pool.plan(0.0)
    ticket = pool.ask(600, 0.0)
    batches = pool.plan(0.0)
    assert [batch.usable for batch in batches] == [512, 512]
    for batch in batches:
        bring(pool, store, batch)
    assert [served for served, _ in pool.serve(0.0)] == [ticket]
    assert not pool.available
    assert not pool.plan(1.0)


def test_batches_have_only_the_configured_sizes() -> None:
    pool = pool_with()
    for count in (1, 511, 513, 5000, 20_000):
        pool.ask(count, 0.0)
        assert {batch.usable for batch in pool.plan(0.0)} <= {512, 4096}


def test_the_first_retry_is_immediate_and_later_ones_back_off() -> None:
    pool = pool_with(PoolSection(minimum=0, maximum=0, batches=[512]))
    pool.ask(100, 0.0)
    (first,) = pool.plan(0.0)
    pool.failed(first.name, 0.0)
    (second,) = pool.plan(0.0)
    assert second.name != first.name
    assert pool.troubled
    pool.failed(second.name, 0.0)
    assert not pool.plan(0.01)
    (third,) = pool.plan(0.06)
    assert pool.confirm(third.name, third.check, 0.1)
    assert not pool.troubled


def test_what_nobody_confirms_is_burned_in_time() -> None:
    pool, store = pool_with(), CnStore()
    pool.ask(100, 0.0)
    (batch, *_) = pool.plan(0.0)
    store.announce("akms-2", batch.name, len(batch.bits), "gold", 0.0)
    store.deliver("f" * 32, bytes(64), 0.0)
    assert store.expire(LONELY_SECONDS) == 2
    assert pool.expire(LOST_SECONDS - 0.1) == 0
    assert pool.knows(batch.name)
    assert pool.expire(LOST_SECONDS) >= 1
    assert not pool.knows(batch.name)
    assert batch.bits.reveal() == bytes(len(batch.bits))


def test_what_comes_late_is_used_all_the_same() -> None:
    """Patience ends, another batch goes in its place, and both arrive: neither is burned."""
    pool, store = pool_with(PoolSection(minimum=0, maximum=0, batches=[512])), CnStore()
    first, second = pool.ask(100, 0.0), pool.ask(500, 0.0)
    late, *_ = pool.plan(0.0)
    assert pool.expire(FIRST_PATIENCE) == 0
    assert (pool.troubled, pool.in_flight) == (True, 0)
    again, *_ = pool.plan(FIRST_PATIENCE)
    assert again is not late
    bring(pool, store, late, FIRST_PATIENCE + 1.0)
    assert not pool.troubled
    assert [ticket for ticket, _ in pool.serve(FIRST_PATIENCE + 1.0)] == [first]
    bring(pool, store, again, FIRST_PATIENCE + 2.0)
    ((ticket, taken),) = pool.serve(FIRST_PATIENCE + 2.0)
    assert ticket == second
    assert {part.batch for part in taken.ranges} == {late.name, again.name}
    assert store.take("akms-2", "gold", taken.ranges) == taken.bits


def test_what_is_said_to_have_failed_and_comes_all_the_same_is_used() -> None:
    """A node on the way lost its neighbour just after the batch had passed."""
    pool, store = pool_with(PoolSection(minimum=0, maximum=0, batches=[512])), CnStore()
    pool.ask(100, 0.0)
    (batch,) = pool.plan(0.0)
    pool.failed(batch.name, 0.1)
    bring(pool, store, batch, 0.2)
    ((_, taken),) = pool.serve(0.2)
    assert store.take("akms-2", "gold", taken.ranges) == taken.bits


def test_when_the_peer_is_away_nobody_waits_for_what_was_sent_before() -> None:
    """Its connection is gone, and maybe its process: others are sent as soon as they can be."""
    pool = pool_with(PoolSection(minimum=0, maximum=0, batches=[512]))
    pool.ask(1000, 0.0)
    sent = pool.plan(0.0)
    assert not pool.plan(0.1)
    pool.doubt(0.2)
    assert not pool.in_flight
    again = pool.plan(0.2)
    assert again
    assert not {batch.name for batch in again} & {batch.name for batch in sent}
    assert [pool.useful(batch.name, 0.2) for batch in sent] == [0.0, 0.0]


def test_when_the_peer_is_back_the_next_attempt_is_at_once() -> None:
    """However long its absence has made the pauses between attempts."""
    pool = pool_with(PoolSection(minimum=0, maximum=0, batches=[512]))
    pool.ask(100, 0.0)
    now = 0.0
    for _ in range(12):
        now = max(now, pool.wake_at(now) if not pool.plan(now) else now)
        for name in [batch for batch in pool._batches if pool._path.waits_for(batch)]:
            pool.failed(name, now)
    assert not pool.plan(now + 0.5)
    pool.hope()
    (batch,) = pool.plan(now + 0.5)
    pool.failed(batch.name, now + 0.5)
    assert pool.troubled
    assert not pool.plan(now + 0.5)
    assert pool.plan(now + 0.6)


def test_names_and_lengths_are_checked() -> None:
    store = CnStore()
    store.announce("akms-2", "a" * 32, 64, "gold", 0.0)
    with pytest.raises(RefusedBatch):
        store.announce("akms-3", "a" * 32, 64, "gold", 0.0)
    with pytest.raises(RefusedBatch):
        store.announce("akms-2", "b" * 32, 32, "gold", 0.0)
    with pytest.raises(RefusedBatch):
        store.deliver("a" * 32, bytes(65), 0.0)


def test_one_maker_may_occupy_only_so_much() -> None:
    store = CnStore()
    for index in range(6):
        name = f"{index:032x}"
        store.announce("akms-2", name, 1_000_000, "gold", 0.0)
        store.deliver(name, bytes(1_000_000), 0.0)
        store.confirmed("akms-2", name)
    assert store.levels()["akms-2"] <= 4_194_304
    with pytest.raises(UnknownBits):
        store.take("akms-2", "gold", [CnRange(f"{0:032x}", 32, 1)])


def test_who_got_no_bits_in_time_is_told_how_long_they_take() -> None:
    """At 1024 bytes a second, and with 5000 that others wait for; not known where nothing comes."""
    pool, store = pool_with(PoolSection(minimum=0, maximum=0, batches=[512])), CnStore()
    assert pool.wait(1000, 0.0) == SHORTEST_WAIT
    pool.ask(70_000, 0.0)
    now = 0.0
    on_the_way: list[CnBatch] = []
    while now < 40.0:
        on_the_way += pool.plan(now)
        now += 0.5
        bring(pool, store, on_the_way.pop(0), now)
    waiting = 70_000 - pool.available
    assert pool.wait(5000, now) == pytest.approx((waiting + 5000) / 1024, rel=0.1)
    pool.ask(1_000_000, now)
    assert pool.wait(1, now) == LONGEST_WAIT
    assert pool.wait(1, now + 30.0) == SHORTEST_WAIT
