"""How a store is found, made or refused: every step from a path to a checked, encrypted database.

A store that exists is never made anew, whatever is wrong with it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keyhaul.keys.material import KeyMaterial
from keyhaul.randomness import Source, identifier
from keyhaul.store import versions
from keyhaul.store.field_cipher import StoreFieldCipher
from keyhaul.store.files import synchronise_directory
from keyhaul.store.interface import Schema, StoreError, StoreUnavailable
from keyhaul.store.lock import StoreLock
from keyhaul.store.sealer import ROOT_KEY_BYTES, Sealer
from keyhaul.store.sqlcipher import engine_of, is_wrong_key, open_raw, plain_errors

SMALLEST_STORE = 4_096
"""Bytes: one page. A store gets its name only once it is whole."""


@dataclass(frozen=True, slots=True)
class OpenedDatabase:
    """A database that this process has to itself."""

    path: Path
    lock: StoreLock
    key: KeyMaterial
    fields: StoreFieldCipher
    about: versions.About


def open_database(path: Path, schema: Schema, sealer: Sealer, source: Source) -> OpenedDatabase:
    """Open the store at `path`, upgraded to `schema`; make it where there has never been one. Blocks.

    Raises:
        StoreUnavailable: locked, unreadable, wrong key, another service's, or it cannot be made.
        StoreCorrupt: what is there is damaged.
        StoreTooNew: a newer release wrote it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(f"cannot make {path.parent}: {error.strerror}") from error
    lock = StoreLock(path)
    try:
        root = _root_key(path, sealer)
        key = database_key(root)
        if not path.exists():
            _create(path, key, schema, source)
        os.chmod(path, 0o600)
        check_key(path, key, sealer)
        found = _bring_up(path, key, schema)
        return OpenedDatabase(path, lock, key, StoreFieldCipher(_field_key(root, found.fields_id), source), found)
    except OSError as error:
        lock.release()
        raise StoreUnavailable(f"the store {path} cannot be opened: {error.strerror}") from error
    except BaseException:
        lock.release()
        raise


def database_key(root: KeyMaterial) -> KeyMaterial:
    """The key of the database's pages."""
    return KeyMaterial(_derive(root, b"", b"keyhaul store database key v1"))


def check_key(path: Path, key: KeyMaterial, sealer: Sealer) -> None:
    """Read the database's first page, and change nothing.

    Raises:
        StoreUnavailable: the key does not open it.
    """
    if path.stat().st_size < SMALLEST_STORE:
        raise StoreUnavailable(
            f"{path} is too short to be a store: restore it from its backup, or remove it to begin anew (what it held "
            "counts as burned)"
        )
    with plain_errors(path):
        try:
            raw: Any = open_raw(path, key)
            try:
                raw.execute("SELECT count(*) FROM sqlite_master").fetchone()
            finally:
                raw.close()
        except Exception as error:
            if not is_wrong_key(error):
                raise
            raise StoreUnavailable(
                f"the store {path} does not open with the key of {sealer.place}: check that both belong together, or "
                "restore the store from its backup; nothing was changed"
            ) from error


def _root_key(path: Path, sealer: Sealer) -> KeyMaterial:
    root = sealer.unseal() if path.exists() or sealer.sealed() else sealer.create()
    if len(root) != ROOT_KEY_BYTES:
        raise StoreUnavailable(f"{sealer.place} holds a key of {root.bits} bits instead of {8 * ROOT_KEY_BYTES}")
    return root


def _create(path: Path, key: KeyMaterial, schema: Schema, source: Source) -> None:
    """Make the store under a draft name, whole and durable, then give it its own."""
    for suffix in ("-wal", "-journal"):
        remnant = path.with_name(path.name + suffix)
        if remnant.exists():
            raise StoreUnavailable(
                f"the store {path} is missing, but {remnant} is there: restore the store, or remove that file to "
                "begin anew (what it held counts as burned)"
            )
    draft = path.with_name(path.name + ".new")
    for leftover in (draft, draft.with_name(draft.name + "-wal"), draft.with_name(draft.name + "-shm")):
        leftover.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    engine = engine_of(draft, key, writer=True)
    with plain_errors(draft):
        with engine.begin() as connection:
            versions.create(connection, schema, identifier(source))
        raw = open_raw(draft, key)
        raw.execute("PRAGMA journal_mode=DELETE")
        raw.close()
    engine.dispose()
    draft.rename(path)
    synchronise_directory(path.parent)


def _bring_up(path: Path, key: KeyMaterial, schema: Schema) -> versions.About:
    engine = engine_of(path, key, writer=True)
    try:
        with plain_errors(path), engine.begin() as connection:
            try:
                return versions.bring_up(connection, schema)
            except StoreError as error:
                raise type(error)(f"the store {path} cannot be used: {error}") from error
    finally:
        engine.dispose()


def _field_key(root: KeyMaterial, store_id: str) -> KeyMaterial:
    return KeyMaterial(_derive(root, bytes.fromhex(store_id), b"keyhaul store fields v1"))


def _derive(root: KeyMaterial, salt: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=purpose).derive(root.reveal())
