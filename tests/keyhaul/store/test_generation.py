"""How far a store is: which of two copies is the older one, and a store that is given another identity."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select, text

from keyhaul.store.interface import StoreUnavailable
from tests.keyhaul.store.conftest import KEYS, Opener


def put(number: int) -> Callable[[Connection], None]:
    def change(connection: Connection) -> None:
        connection.execute(insert(KEYS).values(number=number, state="held"))

    return change


def count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(KEYS)).scalar_one()


def copy(directory: Path, place: Path) -> None:
    """The store's files as they are at this moment, a service may have them open."""
    place.mkdir()
    for file in (directory / "state").glob("store.db*"):
        if not file.name.endswith((".lock", "-shm")):
            shutil.copy(file, place)


def put_back(directory: Path, place: Path) -> None:
    for file in (directory / "state").glob("store.db*"):
        file.unlink()
    for file in place.iterdir():
        shutil.copy(file, directory / "state")


async def test_every_durable_change_raises_the_generation(opener: Opener) -> None:
    store = await opener()
    assert store.opened_generation == 0
    found = [store.generation]
    for number in range(5):
        await store.write(put(number))
        found.append(store.generation)
    assert found == sorted(set(found))
    assert found[0] > 0


async def test_changes_of_one_group_raise_it_for_all(opener: Opener) -> None:
    store = await opener()
    before = store.generation
    seen: list[int] = []

    async def write(number: int) -> None:
        await store.write(put(number))
        seen.append(store.generation)

    await asyncio.gather(*(write(number) for number in range(200)))
    assert all(generation > before for generation in seen)
    assert store.generation - before <= 200


async def test_what_changes_nothing_leaves_it(opener: Opener) -> None:
    store = await opener()
    before = store.generation
    await store.write(count)
    assert store.generation == before


async def test_a_store_is_opened_in_the_generation_in_which_it_was_left(opener: Opener) -> None:
    store = await opener()
    await store.write(put(1))
    left = store.generation
    await store.close()
    again = await opener()
    assert again.opened_generation == left
    assert again.generation > left


async def test_a_copy_from_before_the_store_was_opened_is_older_though_nothing_was_written(
    opener: Opener, tmp_path: Path
) -> None:
    store = await opener()
    await store.write(put(1))
    await store.close()
    copy(tmp_path, tmp_path / "copy")
    store = await opener()
    told = store.generation
    await store.close()
    put_back(tmp_path, tmp_path / "copy")
    assert (await opener()).opened_generation < told


async def test_a_copy_of_a_store_in_use_is_of_its_moment(opener: Opener, tmp_path: Path) -> None:
    store = await opener()
    await store.write(put(1))
    then = store.generation
    copy(tmp_path, tmp_path / "copy")
    await store.write(put(2))
    now = store.generation
    await store.close()
    put_back(tmp_path, tmp_path / "copy")
    restored = await opener()
    assert restored.opened_generation == then < now
    assert await restored.read(count) == 1


async def test_a_store_of_a_release_without_generations_is_never_taken_for_a_new_one(opener: Opener) -> None:
    store = await opener()
    await store.write(lambda c: c.execute(text("DELETE FROM keyhaul_store WHERE name = 'generation'")) and None)
    await store.close()
    store = await opener()
    assert store.opened_generation > 0
    before = store.generation
    await store.write(put(1))
    assert store.generation > before
    left = store.generation
    await store.close()
    assert (await opener()).opened_generation == left


async def test_a_renewed_store_has_another_identity_and_what_it_held(opener: Opener) -> None:
    store = await opener()
    await store.close()
    store = await opener()
    former = store.store_id
    sealed = store.fields.seal(b"bits", b"place")
    await store.renew(put(1))
    renewed = store.store_id
    assert len(bytes.fromhex(renewed)) == 16
    assert renewed != former
    assert store.opened_generation == 0
    assert (await store.status()).store_id == renewed
    await store.close()
    again = await opener()
    assert again.store_id == renewed
    assert again.opened_generation > 0
    assert again.fields.open(sealed, b"place") == b"bits"
    assert await again.read(count) == 1


async def test_a_renewal_that_fails_leaves_the_identity(opener: Opener) -> None:
    store = await opener()
    former = store.store_id

    def fail(connection: Connection) -> None:
        connection.execute(insert(KEYS).values(number=1, state="held"))
        raise LookupError

    with pytest.raises(LookupError):
        await store.renew(fail)
    assert store.store_id == former
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.renew(put(1))
    again = await opener()
    assert again.store_id == former
    assert await again.read(count) == 0
