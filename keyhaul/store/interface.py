"""The store as services see it: functions over a SQLAlchemy connection, durable when awaited.

Statements are SQLAlchemy Core and run on SQLite and PostgreSQL alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sqlalchemy import Connection, MetaData

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Upgrade:
    """One step of a schema: from version `to` - 1 to `to`."""

    to: int
    apply: Callable[[Connection], None]


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of one service and how older stores become this version."""

    name: str
    """E.g. ``akms``; a store of another name is not opened."""
    version: int
    metadata: MetaData
    upgrades: tuple[Upgrade, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What an operator may see of a store."""

    path: str
    schema: str
    version: int
    store_id: str
    """32 hexadecimal digits, random, new with every newly made store."""
    bytes: int
    rows: dict[str, int]
    sealer: str


class FieldCipher(Protocol):
    """Encrypts single fields under a key of the store; `context` (e.g. the key ID) is authenticated with them."""

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """Return nonce, ciphertext and tag."""
        ...

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Return the plain bytes.

        Raises:
            StoreCorrupt: the field was changed, or belongs to another context or store.
        """
        ...


class Store(Protocol):
    """Durable state. A result handed out by `write` has survived a power cut."""

    @property
    def store_id(self) -> str:
        """32 hexadecimal digits: the identity of this store; a new or renewed store has a new one."""
        ...

    @property
    def opened_generation(self) -> int:
        """The generation in which the store was found when it was opened; 0 if it was given its identity since.

        The generation is raised with every durable change and whenever the store is opened: of two copies of one store
        the one of the greater generation is the younger.
        """
        ...

    @property
    def generation(self) -> int:
        """The generation of the last durable change: greater than `opened_generation`."""
        ...

    @property
    def fields(self) -> FieldCipher:
        """The cipher for single fields."""
        ...

    async def write(self, change: Callable[[Connection], Result]) -> Result:
        """Run a change in a transaction; return its result once it is durable.

        Changes of many callers share one commit. A change that raises is rolled back alone.

        Raises:
            StoreUnavailable: the outcome is unknown or the store failed: what was changed counts as burned.
        """
        ...

    async def renew(self, change: Callable[[Connection], Result]) -> Result:
        """Run a change as `write` does, and give the store a new identity in the same transaction.

        What the store holds stays readable.

        Raises:
            StoreUnavailable: the outcome is unknown or the store failed.
        """
        ...

    async def read(self, query: Callable[[Connection], Result]) -> Result:
        """Run a query on the last committed state.

        Raises:
            StoreUnavailable: the store failed.
        """
        ...

    async def status(self) -> StoreStatus:
        """What an operator may see."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, then close."""
        ...


class StoreError(Exception):
    """Any failure of a store; the message says what to do."""


class StoreUnavailable(StoreError):
    """The store cannot be opened or written (missing, locked, full disk, wrong key)."""


class StoreCorrupt(StoreError):
    """The store, or a field in it, is not what was written."""


class StoreTooNew(StoreError):
    """The store was written by a newer release."""
