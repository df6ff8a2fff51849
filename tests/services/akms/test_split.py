"""Class split between two AKMSs: keys only from bits that came in shares, and the same at both ends or none."""

from __future__ import annotations

import random
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyhaul.keys.material import xor
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import FailureReason
from keyhaul.transport.operations import PEER_TRANSFER
from services.akms.cn_store import CnStore, RefusedBatch
from services.akms.service import Terms
from services.ckms.shares import divide, join
from tests.services.akms.town import COLD, WARM, Town


@pytest.fixture
async def town(tmp_path: Path) -> Any:
    town = Town(tmp_path)
    town.aaa.service_class = "split"
    await town.open()
    yield town
    await town.close()
    for node in town.akms.values():
        assert not node.process.failures


async def test_the_end_alone_is_told_the_names_of_batches_that_come_in_shares(town: Town) -> None:
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], 3)
    await town.settled("sae-1a", ["sae-2a"])
    assert {submit.service_class for submit in town.submitted} == {"split"}
    assert town.announced == [("akms-1", submit.batch) for submit in town.submitted]


async def test_a_share_that_was_altered_burns_the_bits_at_both_ends(town: Town) -> None:
    """Whichever share it is; the keys come from others."""
    seeded = random.Random(1)

    def altered(number: int, at: int) -> Any:
        def alter(bits: bytes) -> bytes:
            shares = divide(bits, 2, seeded.randbytes)
            shares[number] = xor(shares[number], bytes(at) + b"\x10" + bytes(len(bits) - at - 1))
            return join(shares)

        return alter

    town.carrier += [altered(0, 0), altered(1, 40), altered(0, 63)]
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], seconds=30)
    assert town.a.process.alarms.count("cn-bits-differ") == town.b.process.alarms.count("cn-bits-differ") == 3
    assert "transfer-not-authentic" not in town.a.process.alarms
    await town.settled("sae-1a", ["sae-2a"])


@pytest.mark.parametrize(("service_class", "shares"), [("split", 1), ("silver", 2)])
async def test_bits_that_came_another_way_than_their_class_says_are_never_used(
    town: Town, service_class: str, shares: int
) -> None:
    town.aaa.service_class = service_class
    town.shares = {service_class: shares}
    with pytest.raises(ServiceError):
        await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], seconds=1.0)
    assert "cn-batch-refused" in town.a.process.alarms
    assert not town.a.service.carrier.arrivals.levels().get("akms-2")
    assert not town.records


async def test_a_refusal_of_the_carrier_reaches_users_as_one_of_the_closed_list(town: Town) -> None:
    town.carrier += [lambda _: None] * 1_000
    with pytest.raises(ServiceError):
        await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], seconds=1.0)
    assert not town.records
    [failure] = town.ukms["ukms-1"].failures.values()
    assert failure.reason in (FailureReason.NO_KEYS, FailureReason.DEADLINE)
    assert "split" not in str(msgspec.to_builtins(failure))


async def test_where_the_carriers_end_takes_no_more_nothing_is_delivered_and_the_next_attempt_is_whole(
    town: Town,
) -> None:
    town.unexpecting += [ErrorCode.BUSY, ErrorCode.UNREACHABLE]
    await town.ukms["ukms-1"].ask("sae-1a", ["sae-2a"], seconds=30)
    await town.settled("sae-1a", ["sae-2a"])
    assert len({submit.batch for submit in town.submitted}) == len({submit.bits for submit in town.submitted}) == 3
    assert len(town.announced) == 1


@pytest.mark.parametrize("pool", [COLD, WARM])
async def test_keys_of_a_class_come_from_bits_of_that_class_alone(tmp_path: Path, pool: Any) -> None:
    town = Town(tmp_path, Terms(pool=pool))
    town.aaa.terms_of = {"sae-1a": {"service_class": "split"}}
    await town.open()
    transfers: list[Any] = []
    to_akms = town.to_akms

    async def watch(caller: Any, certificate: Any, target: str, operation: Any, request: Any) -> Any:
        if operation is PEER_TRANSFER:
            transfers.append(request)
        return await to_akms(caller, certificate, target, operation, request)

    town.to_akms = watch  # type: ignore[method-assign]
    issued: defaultdict[str, set[Any]] = defaultdict(set)
    for _ in range(4):
        for master in ("sae-1a", "sae-1b"):
            issued[master] |= set(await town.ukms["ukms-1"].ask(master, ["sae-2a"], 2))
    class_of = {submit.batch: submit.service_class for submit in town.submitted}
    for transfer in transfers:
        [master] = [master for master, ids in issued.items() if ids & set(transfer.key_ids)]
        wanted = "split" if master == "sae-1a" else "silver"
        assert {class_of[part.batch] for part in transfer.cn} == {wanted}
    assert {batch for _, batch in town.announced} == {batch for batch, one in class_of.items() if one == "split"}
    await town.close()


@pytest.mark.parametrize("first", ["announced", "delivered"])
def test_a_batch_of_class_split_that_comes_whole_is_wiped(first: str) -> None:
    for service_class, shares in product(("split", "gold"), (1, 2)):
        taken = (service_class == "split") is (shares == 2)
        store, bits = CnStore(), bytes(range(1, 100))
        if first == "announced":
            store.announce("akms-2", "a" * 32, len(bits), service_class, 0.0)
        else:
            store.deliver("a" * 32, bits, 0.0, shares=shares)
        held = [one.bits for one in store._lonely.values()]
        refused = False
        try:
            if first == "announced":
                arrived = store.deliver("a" * 32, bits, 0.0, shares=shares)
            else:
                arrived = store.announce("akms-2", "a" * 32, len(bits), service_class, 0.0)
        except RefusedBatch:
            refused = True
        else:
            assert arrived is not None
        assert refused is not taken
        assert taken or not any(any(one.reveal()) for one in held)
        assert bool(store._of("akms-2")) is taken


def test_an_announcement_is_withdrawn_by_its_maker_alone() -> None:
    store = CnStore()
    store.announce("akms-2", "a" * 32, 99, "split", 0.0)
    store.withdraw("akms-3", "a" * 32)
    assert store._announced
    store.withdraw("akms-2", "a" * 32)
    assert not store._announced
