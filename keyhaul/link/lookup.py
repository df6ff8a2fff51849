"""Looking up offered keys at this end's QKD module, which answers all or nothing (ETSI GS QKD 014 clause 5.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from keyhaul.keys.etsi014 import KeyContainer, Status
from keyhaul.transport.etsi014 import Etsi014Error, Etsi014Unreachable
from keyhaul.transport.messages.base import ErrorCode, ServiceError

LOOKUP_DEADLINE = 4.0
"""Seconds that the whole search for one offer's keys may take."""

MAXIMUM_CALLS = 256
"""Calls of one search; keys not found by then count as missing."""

_NOT_FOUND = 400


class Module(Protocol):
    """What a link needs of `keyhaul.transport.etsi014.Client014`."""

    async def status(self, slave: str, *, deadline: float) -> Status:
        """Clause 5.1."""
        ...

    async def get_key(self, slave: str, *, number: int, size: int | None, deadline: float) -> KeyContainer:
        """Clause 5.2."""
        ...

    async def get_key_with_ids(self, master: str, ids: Sequence[UUID], *, deadline: float) -> KeyContainer:
        """Clause 5.3."""
        ...


class Lookup:
    """Finds which keys of an offer the module has, and remembers them until the offer is settled."""

    def __init__(self, module: Module, master: str) -> None:
        """Prepare.

        Args:
            module: this end's QKD module.
            master: the other end's SAE ID.
        """
        self._module = module
        self._master = master
        self._found: dict[UUID, bytes] = {}
        self._most = 0

    async def find(self, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        """Return the bits of those keys that the module has; it gives each only once.

        A list with a missing key is halved until the missing ones are known.

        Raises:
            ServiceError: busy: the module is away or refuses; what it gave already is kept for the next attempt.
        """
        wanted = set(ids)
        self._found = {key_id: bits for key_id, bits in self._found.items() if key_id in wanted}
        try:
            async with asyncio.timeout(LOOKUP_DEADLINE):
                await self._search([key_id for key_id in ids if key_id not in self._found])
        except TimeoutError:
            raise ServiceError(ErrorCode.BUSY, "the QKD module is slow", retry_after_ms=1000) from None
        except Etsi014Unreachable:
            raise ServiceError(ErrorCode.BUSY, "the QKD module is away", retry_after_ms=1000) from None
        except Etsi014Error as error:
            wait = int(1000 * (error.retry_after or 1.0))
            raise ServiceError(ErrorCode.BUSY, f"the QKD module answers {error.status}", retry_after_ms=wait) from None
        return dict(self._found)

    def settled(self) -> None:
        """The offer was answered durably: forget its keys."""
        self._found.clear()

    async def _search(self, ids: list[UUID]) -> None:
        if not self._most:
            self._most = (await self._module.status(self._master, deadline=LOOKUP_DEADLINE)).max_key_per_request
        waiting = [ids[start : start + self._most] for start in range(0, len(ids), self._most)]
        for _ in range(MAXIMUM_CALLS):
            if not waiting:
                return
            part = waiting.pop()
            try:
                container = await self._module.get_key_with_ids(self._master, part, deadline=LOOKUP_DEADLINE)
            except Etsi014Error as error:
                if error.status != _NOT_FOUND:
                    raise
                if len(part) > 1:
                    middle = len(part) // 2
                    waiting += [part[:middle], part[middle:]]
                continue
            self._found.update((key.key_ID, key.key) for key in container.keys)
