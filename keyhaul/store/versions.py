"""What a store says of itself (schema, version, identity) and how an older one becomes the present version."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select, update

from keyhaul.store.interface import Schema, StoreCorrupt, StoreTooNew, StoreUnavailable

_METADATA = MetaData()
_ABOUT = Table(
    "keyhaul_store",
    _METADATA,
    Column("name", String(32), primary_key=True),
    Column("value", String(64), nullable=False),
)


@dataclass(frozen=True, slots=True)
class About:
    """What the store says of itself."""

    schema: str
    version: int
    store_id: str


def create(connection: Connection, schema: Schema, store_id: str) -> None:
    """Make the tables of an empty database, inside the caller's transaction."""
    _METADATA.create_all(connection)
    schema.metadata.create_all(connection)
    rows = {"schema": schema.name, "version": str(schema.version), "store_id": store_id}
    connection.execute(insert(_ABOUT), [{"name": name, "value": value} for name, value in rows.items()])


def about(connection: Connection) -> About:
    """Read what the store says of itself.

    Raises:
        StoreCorrupt: it says nothing, or nonsense.
    """
    if not inspect(connection).has_table(_ABOUT.name):
        raise StoreCorrupt("it holds no Keyhaul store: restore it, or remove it to begin anew")
    rows = {row.name: row.value for row in connection.execute(select(_ABOUT))}
    try:
        return About(rows["schema"], int(rows["version"]), rows["store_id"])
    except (KeyError, ValueError) as error:
        raise StoreCorrupt("its description is incomplete: restore it from a backup") from error


def bring_up(connection: Connection, schema: Schema) -> About:
    """Check that this is a store of `schema` and take it to its version, inside the caller's transaction.

    Raises:
        StoreTooNew: a newer release wrote it.
        StoreUnavailable: it belongs to another service, or a step is missing.
    """
    found = about(connection)
    if found.schema != schema.name:
        raise StoreUnavailable(f"it is the store of {found.schema}, not of {schema.name}: check [store] path")
    if found.version > schema.version:
        raise StoreTooNew(
            f"it has schema {schema.name} version {found.version} and this release knows up to {schema.version}: "
            "install the release that wrote it, or restore a backup from before the upgrade"
        )
    steps = {step.to: step for step in schema.upgrades}
    for version in range(found.version + 1, schema.version + 1):
        if version not in steps:
            raise StoreUnavailable(
                f"it has schema {schema.name} version {found.version}, and this release cannot take it to {version}: "
                "upgrade through an older release first"
            )
        steps[version].apply(connection)
        connection.execute(update(_ABOUT).where(_ABOUT.c.name == "version").values(value=str(version)))
    return About(schema.name, max(found.version, schema.version), found.store_id)
