from __future__ import annotations

import uuid

import pytest

from keyhaul.link.lookup import MAXIMUM_CALLS, Lookup
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from tests.keyhaul.link.doubles import FakeModule, ModulePair


def pair(count: int, missing: set[int]) -> tuple[ModulePair, list[uuid.UUID]]:
    ids = [uuid.uuid4() for _ in range(count)]
    return ModulePair(handed={each: each.bytes * 2 for number, each in enumerate(ids) if number not in missing}), ids


@pytest.mark.parametrize("missing", [set(), {0}, {255}, {3, 4, 200}, set(range(0, 256, 40))])
async def test_the_missing_keys_are_found_out_by_halving(missing: set[int]) -> None:
    modules, ids = pair(256, missing)
    module = FakeModule(modules)
    found = await Lookup(module, "master").find(ids)
    assert found == {each: each.bytes * 2 for number, each in enumerate(ids) if number not in missing}
    assert module.calls <= 1 + 2 + 16 * len(missing)


async def test_the_number_of_calls_is_bounded() -> None:
    modules, ids = pair(256, set(range(0, 256, 2)))
    module = FakeModule(modules)
    found = await Lookup(module, "master").find(ids)
    assert module.calls <= MAXIMUM_CALLS + 1
    assert set(found) <= set(ids)


async def test_a_module_that_is_away_means_later() -> None:
    modules, ids = pair(4, set())
    modules.away = True
    with pytest.raises(ServiceError) as refused:
        await Lookup(FakeModule(modules), "master").find(ids)
    assert refused.value.code is ErrorCode.BUSY


async def test_what_was_fetched_is_kept_until_the_offer_is_settled() -> None:
    modules, ids = pair(4, set())
    lookup = Lookup(FakeModule(modules), "master")
    first = await lookup.find(ids)
    assert await lookup.find(ids) == first
    lookup.settled()
    assert await lookup.find(ids) == {}
