"""Checks a store that no service has open: key, pages, schema, references, permissions. Nothing is changed."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from keyhaul.config.services import StoreSection
from keyhaul.store import versions
from keyhaul.store.interface import Schema, StoreCorrupt, StoreError, StoreUnavailable
from keyhaul.store.lock import StoreLock
from keyhaul.store.opening import check_key, database_key
from keyhaul.store.sealer import Sealer, sealer_of
from keyhaul.store.sqlcipher import engine_of, open_raw, plain_errors


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    check: str
    passed: bool
    detail: str


def verify(section: StoreSection, directory: Path, schema: Schema) -> list[Finding]:
    """Check the store of a [store] section. Blocks.

    Args:
        section: its paths are relative to `directory`.
        directory: where the configuration file is.
        schema: of the service whose store it should be, as this release knows it.

    Raises:
        StoreUnavailable: a service has it open, it is missing, or its key does not open it.
    """
    path = directory / section.path
    sealer = sealer_of(section, directory)
    if not path.exists():
        raise StoreUnavailable(f"there is no store at {path}: the service makes it at its first start")
    lock = StoreLock(path)
    try:
        key = database_key(sealer.unseal())
        check_key(path, key, sealer)
        findings = _permissions(path, sealer)
        raw = open_raw(path, key, ("PRAGMA query_only=ON",))
        try:
            for check, pragma in (
                ("authenticity of pages", "cipher_integrity_check"),
                ("structure", "integrity_check"),
                ("references", "foreign_key_check"),
            ):
                findings.append(_pragma(raw, path, check, pragma))
        finally:
            raw.close()
        if all(finding.passed for finding in findings if finding.check != "permissions"):
            engine = engine_of(path, key, writer=False)
            with plain_errors(path), engine.connect() as connection:
                findings.append(_schema(versions.about(connection), schema))
            engine.dispose()
        return findings
    finally:
        lock.release()


def _schema(found: versions.About, schema: Schema) -> Finding:
    """Whether this release's service could use the store."""
    try:
        steps = versions.missing_steps(found, schema)
    except StoreError as error:
        return Finding("schema", False, str(error))
    detail = f"{found.schema} version {found.version}, store {found.store_id}"
    if steps:
        detail += f"; the service takes it to version {schema.version} when it starts"
    return Finding("schema", True, detail)


def _permissions(path: Path, sealer: Sealer) -> list[Finding]:
    found = []
    for file in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm"), sealer.place):
        if file.exists():
            mode = stat.S_IMODE(file.stat().st_mode)
            found.append(Finding("permissions", not mode & 0o077, f"{file} {mode:04o}"))
    return found


def _pragma(raw: object, path: Path, check: str, pragma: str) -> Finding:
    try:
        with plain_errors(path):
            rows = [" ".join(map(str, row)) for row in raw.execute(f"PRAGMA {pragma}").fetchmany(20)]  # type: ignore[attr-defined]
    except StoreCorrupt:
        return Finding(check, False, "the database is damaged")
    faults = [row for row in rows if row != "ok"]
    return Finding(check, not faults, "; ".join(faults) or "ok")
