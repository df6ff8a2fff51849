"""The embedded store: what is acknowledged stays, what fails fails alone, one process per file."""

from __future__ import annotations

import asyncio
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlcipher3 import dbapi2

from keyhaul.config.services import StoreSection
from keyhaul.store import opened, writer
from keyhaul.store.embedded import EmbeddedStore
from keyhaul.store.interface import Schema, StoreCorrupt, StoreTooNew, StoreUnavailable, Upgrade
from tests.keyhaul.store.conftest import KEYS, METADATA, SCHEMA, SECTION, Opener


def put(number: int, state: str = "held") -> Callable[[Connection], int]:
    def change(connection: Connection) -> int:
        connection.execute(insert(KEYS).values(number=number, state=state))
        return number

    return change


def sql(statement: str) -> Callable[[Connection], None]:
    def change(connection: Connection) -> None:
        connection.execute(text(statement))

    return change


def count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(KEYS)).scalar_one()


async def test_a_new_store_has_an_identity_that_stays(opener: Opener) -> None:
    store = await opener()
    identity = store.store_id
    assert len(bytes.fromhex(identity)) == 16
    await store.close()
    assert (await opener()).store_id == identity


async def test_what_was_written_is_there_after_reopening(opener: Opener) -> None:
    store = await opener()
    await asyncio.gather(*(store.write(put(number)) for number in range(300)))
    await store.close()
    assert await (await opener()).read(count) == 300


async def test_waiting_changes_share_one_commit(opener: Opener) -> None:
    store = await opener()
    held = threading.Event()
    blocker = asyncio.ensure_future(store.write(lambda connection: held.wait(10)))
    transactions: set[int] = set()

    def note(connection: Connection) -> None:
        transactions.add(id(connection.get_transaction()))

    waiting = [asyncio.ensure_future(store.write(note)) for _ in range(50)]
    await asyncio.sleep(0)
    held.set()
    await asyncio.gather(blocker, *waiting)
    assert len(transactions) == 1


async def test_a_failing_change_is_rolled_back_alone(opener: Opener) -> None:
    store = await opener()
    await store.write(put(1))

    def half(connection: Connection) -> None:
        connection.execute(insert(KEYS).values(number=100, state="half"))
        raise LookupError("no such key")

    outcomes = await asyncio.gather(
        store.write(put(2)),
        store.write(half),
        store.write(put(1)),
        store.write(put(3)),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], LookupError)
    assert isinstance(outcomes[2], IntegrityError)
    numbers = await store.read(lambda connection: list(connection.execute(select(KEYS.c.number)).scalars()))
    assert numbers == [1, 2, 3]


async def test_a_change_that_ends_the_transaction_fails_for_all_of_its_group(opener: Opener) -> None:
    store = await opener()
    with pytest.raises(StoreUnavailable, match="outcome is unknown"):
        await store.write(sql("ROLLBACK"))
    await store.write(put(7))
    assert await store.read(count) == 1


async def test_errors_do_not_show_the_values_of_a_statement(opener: Opener) -> None:
    store = await opener()
    secret = b"\x00not for logs"
    await store.write(lambda connection: connection.execute(insert(KEYS).values(number=1, state="a", bits=secret)))
    with pytest.raises(IntegrityError) as caught:
        await store.write(lambda connection: connection.execute(insert(KEYS).values(number=1, state="a", bits=secret)))
    assert "not for logs" not in str(caught.value)


async def test_reads_see_committed_state_and_cannot_write(opener: Opener) -> None:
    store = await opener()
    await store.write(put(1))
    with pytest.raises(StoreUnavailable):
        await store.read(put(2))
    assert await store.read(count) == 1


async def test_many_writers_and_readers_at_once(opener: Opener) -> None:
    store = await opener()

    async def one(number: int) -> int:
        await store.write(put(number))
        await store.write(
            lambda connection: connection.execute(update(KEYS).where(KEYS.c.number == number).values(state="issued"))
        )
        return await store.read(count)

    seen = await asyncio.gather(*(one(number) for number in range(100)))
    assert max(seen) == 100


async def test_a_full_queue_refuses(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "WAITING", 3)
    store = await opener()
    held = threading.Event()
    started = threading.Event()

    def block(connection: Connection) -> None:
        started.set()
        held.wait(10)

    blocker = asyncio.ensure_future(store.write(block))
    await asyncio.to_thread(started.wait, 10)
    waiting = [asyncio.ensure_future(store.write(put(number))) for number in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="busy"):
        await store.write(put(99))
    held.set()
    await asyncio.gather(blocker, *waiting)


async def test_a_second_opener_is_told_who_holds_it(opener: Opener, tmp_path: Path) -> None:
    await opener()
    with pytest.raises(StoreUnavailable, match=r"open in another process \(pid \d+\)"):
        await EmbeddedStore.open(SECTION, tmp_path, SCHEMA)


async def test_closing_finishes_what_was_accepted_and_refuses_the_rest(opener: Opener, tmp_path: Path) -> None:
    store = await opener()
    accepted = [asyncio.ensure_future(store.write(put(number))) for number in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*accepted) == list(range(50))
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.write(put(99))
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.read(count)
    assert not (tmp_path / "state/store.db-wal").exists()


async def test_an_open_store_is_known_to_its_process(opener: Opener) -> None:
    store = await opener()
    assert store in opened.stores()
    await store.close()
    assert store not in opened.stores()


async def test_files_are_for_their_owner_alone(opener: Opener, tmp_path: Path) -> None:
    store = await opener()
    await store.write(put(1))
    files = [*(tmp_path / "state").iterdir(), tmp_path / "secrets/store.key"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_status_counts_rows(opener: Opener) -> None:
    store = await opener()
    await store.write(put(1))
    status = await store.status()
    assert (status.schema, status.version, status.rows["keys"], status.sealer) == ("test", 1, 1, "key-file")
    assert status.bytes > 4096


async def test_nothing_readable_is_on_the_disk(opener: Opener, tmp_path: Path) -> None:
    store = await opener()
    await store.write(put(1, "recognisable"))
    for file in (tmp_path / "state").iterdir():
        assert b"recognisable" not in file.read_bytes()
        assert b"SQLite format" not in file.read_bytes()


async def test_a_wrong_key_says_what_to_check_and_changes_nothing(opener: Opener, tmp_path: Path) -> None:
    await (await opener()).close()
    before = (tmp_path / "state/store.db").read_bytes()
    (tmp_path / "secrets/store.key").write_text("00" * 32)
    with pytest.raises(StoreUnavailable, match="does not open with the key of"):
        await opener()
    assert (tmp_path / "state/store.db").read_bytes() == before


async def test_a_missing_key_is_not_made_anew_for_an_existing_store(opener: Opener, tmp_path: Path) -> None:
    await (await opener()).close()
    (tmp_path / "secrets/store.key").unlink()
    with pytest.raises(StoreUnavailable, match="restore it from its backup"):
        await opener()
    assert not (tmp_path / "secrets/store.key").exists()


async def test_a_file_that_is_no_store_is_left_alone(opener: Opener, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/store.key").write_text("00" * 32)
    (tmp_path / "secrets/store.key").chmod(0o600)
    for content in (b"", b"hello", b"hello" * 10_000):
        (tmp_path / "state/store.db").write_bytes(content)
        with pytest.raises((StoreUnavailable, StoreCorrupt)):
            await opener()
        assert (tmp_path / "state/store.db").read_bytes() == content


async def test_a_log_without_its_database_is_not_thrown_away(opener: Opener, tmp_path: Path) -> None:
    await (await opener()).close()
    (tmp_path / "state/store.db").rename(tmp_path / "state/store.db-wal")
    with pytest.raises(StoreUnavailable, match="is missing, but"):
        await opener()


async def test_a_draft_of_a_first_start_that_crashed_is_replaced(opener: Opener, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/store.db.new").write_bytes(b"half")
    assert await (await opener()).read(count) == 0


async def test_damage_is_found_and_named(opener: Opener, tmp_path: Path) -> None:
    store = await opener()
    for start in range(0, 2000, 500):
        await store.write(
            lambda connection, start=start: connection.execute(  # type: ignore[misc]
                insert(KEYS), [{"number": start + n, "state": "held", "bits": bytes(100)} for n in range(500)]
            )
        )
    await store.close()
    path = tmp_path / "state/store.db"
    content = bytearray(path.read_bytes())
    for page in range(5, len(content) // 4096):
        content[page * 4096 + 50] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match="damaged"):
        await (await opener()).read(lambda connection: connection.execute(select(KEYS)).all())


async def test_an_older_store_is_upgraded_step_by_step(opener: Opener) -> None:
    await (await opener()).close()
    newer = MetaData()
    Table("keys", newer, Column("number", Integer, primary_key=True))
    steps = (
        Upgrade(2, sql("ALTER TABLE keys ADD COLUMN owner TEXT")),
        Upgrade(3, sql("UPDATE keys SET owner = 'nobody'")),
    )
    store = await opener(Schema("test", 3, newer, steps))
    assert (await store.status()).version == 3
    await store.write(sql("INSERT INTO keys (number, state, owner) VALUES (1, 's', 'me')"))
    await store.close()
    with pytest.raises(StoreTooNew, match="install the release"):
        await opener()


async def test_an_upgrade_that_fails_leaves_the_old_version(opener: Opener) -> None:
    await (await opener()).close()

    def breaks(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE keys ADD COLUMN owner TEXT"))
        raise StoreUnavailable("cannot be converted")

    with pytest.raises(StoreUnavailable, match="cannot be converted"):
        await opener(Schema("test", 2, METADATA, (Upgrade(2, breaks),)))
    with pytest.raises(StoreUnavailable, match="cannot take it to 2"):
        await opener(Schema("test", 2, METADATA))
    assert await (await opener()).read(count) == 0


async def test_the_store_of_another_service_is_refused(opener: Opener) -> None:
    await (await opener()).close()
    with pytest.raises(StoreUnavailable, match="is the store of test, not of other"):
        await opener(Schema("other", 1, METADATA))


async def test_a_directory_that_cannot_be_made_is_named(opener: Opener, tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file")
    with pytest.raises(StoreUnavailable, match="cannot make"):
        await opener(section=StoreSection(path="blocked/store.db", key_file="secrets/store.key"))


def test_the_driver_is_sqlcipher() -> None:
    connection = dbapi2.connect(":memory:")
    try:
        assert connection.execute("PRAGMA cipher_version").fetchone()
    finally:
        connection.close()
