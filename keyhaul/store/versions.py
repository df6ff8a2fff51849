"""What a store says of itself (schema, version, identity, generation), and how an older one comes up to date.

The generation is raised with every commit that changes something, and once whenever the store is opened: of two copies
of one store the one of the greater generation is the younger, and none that was made before the store was last opened
has that opening's generation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select, update

from keyhaul.store.interface import Schema, StoreCorrupt, StoreTooNew, StoreUnavailable, Upgrade

_METADATA = MetaData()
_ABOUT = Table(
    "keyhaul_store",
    _METADATA,
    Column("name", String(32), primary_key=True),
    Column("value", String(64), nullable=False),
)


RAISE = "UPDATE keyhaul_store SET value = ? WHERE name = 'generation'"
"""Raw, for the writer: it runs in every commit that changes something."""

_FIRST = 1
"""Generation in which a store of a release without generations is found; 0 is that of a newly made one."""


@dataclass(frozen=True, slots=True)
class About:
    """What the store says of itself."""

    schema: str
    version: int
    store_id: str
    fields_id: str
    """The identity with which the store was made: its fields are sealed under it."""
    generation: int
    """As it was found; opening the store raises it by one."""


def create(connection: Connection, schema: Schema, store_id: str) -> None:
    """Make the tables of an empty database, inside the caller's transaction."""
    _METADATA.create_all(connection)
    schema.metadata.create_all(connection)
    rows = {"schema": schema.name, "version": str(schema.version), "store_id": store_id, "generation": "0"}
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
        made = rows["store_id"]
        generation = int(rows.get("generation", _FIRST))
        return About(rows["schema"], int(rows["version"]), rows.get("identity", made), made, generation)
    except (KeyError, ValueError) as error:
        raise StoreCorrupt("its description is incomplete: restore it from a backup") from error


def missing_steps(found: About, schema: Schema) -> list[Upgrade]:
    """The steps that take a store to `schema`, in their order.

    Raises:
        StoreTooNew: a newer release wrote it.
        StoreUnavailable: it belongs to another service, or a step is missing.
    """
    if found.schema != schema.name:
        raise StoreUnavailable(f"it is the store of {found.schema}, not of {schema.name}: check [store] path")
    if found.version > schema.version:
        raise StoreTooNew(
            f"it has schema {schema.name} version {found.version} and this release knows up to {schema.version}: "
            "install the release that wrote it, or restore a backup from before the upgrade"
        )
    known = {step.to: step for step in schema.upgrades}
    for version in range(found.version + 1, schema.version + 1):
        if version not in known:
            raise StoreUnavailable(
                f"it has schema {schema.name} version {found.version}, and this release cannot take it to {version}: "
                "upgrade through an older release first"
            )
    return [known[version] for version in range(found.version + 1, schema.version + 1)]


def bring_up(connection: Connection, schema: Schema) -> About:
    """Check that this is a store of `schema`, take it to its version and raise its generation by one.

    Inside the caller's transaction.

    Raises:
        StoreTooNew: a newer release wrote it.
        StoreUnavailable: it belongs to another service, or a step is missing.
    """
    found = about(connection)
    for step in missing_steps(found, schema):
        step.apply(connection)
        connection.execute(update(_ABOUT).where(_ABOUT.c.name == "version").values(value=str(step.to)))
    _say(connection, "generation", str(found.generation + 1))
    return replace(found, version=max(found.version, schema.version))


def renew(connection: Connection, store_id: str) -> None:
    """Give the store another identity, inside the caller's transaction; what it holds stays."""
    _say(connection, "identity", store_id)


def _say(connection: Connection, name: str, value: str) -> None:
    if not connection.execute(update(_ABOUT).where(_ABOUT.c.name == name).values(value=value)).rowcount:
        connection.execute(insert(_ABOUT).values(name=name, value=value))
