"""What an operator has set for a link at run time, beyond its configuration; it outlives the process."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, MetaData, delete, insert, inspect, select

from keyhaul.link.tables import add_link_tables
from keyhaul.store.interface import Store

_SETTINGS = add_link_tables(MetaData()).settings


@dataclass(frozen=True, slots=True)
class Settings:
    """One link's; as made, nothing is set and the configuration alone counts."""

    enabled: bool = True
    """Whether the link may be used."""
    suites: tuple[str, ...] = ()
    """Protections, best first, instead of the configuration's; empty: the configuration's."""


class LinkSettings:
    """Reads and writes one link's settings in a service's store."""

    def __init__(self, store: Store, link: str) -> None:
        self._store = store
        self._link = link

    async def load(self) -> Settings:
        """Read the settings.

        Raises:
            StoreUnavailable: the store failed.
        """
        return await self._store.read(self._read)

    async def save(self, settings: Settings) -> None:
        """Make settings durable.

        Raises:
            StoreUnavailable: the outcome is unknown.
        """
        await self._store.write(lambda connection: self._write(connection, settings))

    def _read(self, connection: Connection) -> Settings:
        if not inspect(connection).has_table(_SETTINGS.name):
            return Settings()
        row = connection.execute(
            select(_SETTINGS.c.enabled, _SETTINGS.c.suites).where(_SETTINGS.c.link == self._link)
        ).one_or_none()
        return Settings() if row is None else Settings(row.enabled, tuple(row.suites.split()))

    def _write(self, connection: Connection, settings: Settings) -> None:
        # A store of the release before has no such table; one that has it opens under that release all the same.
        _SETTINGS.create(connection, checkfirst=True)
        connection.execute(delete(_SETTINGS).where(_SETTINGS.c.link == self._link))
        if settings != Settings():
            values = {"link": self._link, "enabled": settings.enabled, "suites": " ".join(settings.suites)}
            connection.execute(insert(_SETTINGS).values(values))
