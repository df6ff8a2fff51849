"""The keys one end of a pair holds, in memory: bounded, oldest out first, wiped when they leave unused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from keyhaul.keys.material import KeyMaterial


class HeldKey(NamedTuple):
    """A key with its ID."""

    id: UUID
    material: KeyMaterial


class Pool:
    """Keys of one direction at one end, in the order of their making."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        """Keys that it holds at most."""
        self._keys: dict[UUID, KeyMaterial] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key_id: UUID) -> bool:
        return key_id in self._keys

    def ids(self) -> set[UUID]:
        """The IDs of all keys in it."""
        return set(self._keys)

    def add(self, keys: Iterable[HeldKey]) -> int:
        """Store keys; return how many of the oldest dropped out for them.

        Raises:
            ValueError: an ID is there already.
        """
        for key in keys:
            if key.id in self._keys:
                raise ValueError(f"key {key.id} is stored already")
            self._keys[key.id] = key.material
        dropped = 0
        while len(self._keys) > self.capacity:
            self._keys.pop(next(iter(self._keys))).wipe()
            dropped += 1
        return dropped

    def take_oldest(self, number: int) -> list[HeldKey] | None:
        """Remove and return the `number` oldest keys; None (and nothing removed) where there are fewer."""
        if number > len(self._keys):
            return None
        oldest = [key_id for key_id, _ in zip(self._keys, range(number), strict=False)]
        return [HeldKey(key_id, self._keys.pop(key_id)) for key_id in oldest]

    def take(self, key_ids: Sequence[UUID]) -> list[HeldKey] | None:
        """Remove and return those keys; None (and nothing removed) where one is missing or named twice."""
        if len(set(key_ids)) != len(key_ids) or any(key_id not in self._keys for key_id in key_ids):
            return None
        return [HeldKey(key_id, self._keys.pop(key_id)) for key_id in key_ids]

    def clear(self) -> int:
        """Wipe and drop everything; return how many keys that were."""
        count = len(self._keys)
        for material in self._keys.values():
            material.wipe()
        self._keys.clear()
        return count


class Store:
    """Both directions' keys at one end.

    `own` are those that this end's enc_keys gives out, `peer` those that the other end's does and that this end's
    SAE fetches by ID. A key leaves `own` when it is given out, but the copy in the other end's `peer` only when it is
    fetched; so `own` holds an eighth less than `peer`, lest fresh keys push out those that are just being fetched.
    """

    def __init__(self, capacity: int) -> None:
        share = max(2, capacity // 2)
        self.own = Pool(share - max(1, share // 8))
        self.peer = Pool(share)

    def clear(self) -> int:
        """Wipe and drop everything; return how many keys that were."""
        return self.own.clear() + self.peer.clear()
