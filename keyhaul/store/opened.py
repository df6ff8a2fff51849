"""The stores that this process has open, so that the process around a service can tell their state."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyhaul.store.interface import Store

_stores: list[Store] = []


def add(store: Store) -> None:
    """Count a store as open."""
    _stores.append(store)


def remove(store: Store) -> None:
    """A store is closing."""
    _stores.remove(store)


def stores() -> tuple[Store, ...]:
    """The open stores."""
    return tuple(_stores)
