"""All buffers of a UKMS: found by what their keys have in common, bounded in number, forgotten when they are idle."""

from __future__ import annotations

from collections.abc import Iterator

from keyhaul.identity.names import SaeId
from services.ukms.buffer import IDLE, Buffer, BufferKey, Policy
from services.ukms.leases import Demand
from services.ukms.waiting import BufferFull

MAXIMUM_BUFFERS = 4096

SHORT_IDLE = 60.0
"""Seconds after the last request for which an empty buffer is kept when there are as many as there may be."""


class Buffers:
    """All buffers of a UKMS."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._buffers: dict[BufferKey, Buffer] = {}

    def __iter__(self) -> Iterator[Buffer]:
        return iter(tuple(self._buffers.values()))

    def __len__(self) -> int:
        return len(self._buffers)

    def find(self, key: BufferKey) -> Buffer | None:
        """The buffer, None where there is none yet."""
        return self._buffers.get(key)

    def buffer(self, key: BufferKey, slaves: tuple[SaeId, ...], now: float) -> Buffer:
        """The buffer, made where there is none.

        Raises:
            BufferFull: there are as many buffers as there may be, none of them idle.
        """
        buffer = self._buffers.get(key)
        if buffer is None:
            if len(self._buffers) >= MAXIMUM_BUFFERS:
                self.drop_idle(now, SHORT_IDLE)
            if len(self._buffers) >= MAXIMUM_BUFFERS:
                raise BufferFull
            buffer = Buffer(key, self._policy, slaves, Demand(self._policy.horizon), now)
            self._buffers[key] = buffer
        buffer.touched = now
        return buffer

    def of(self, master: SaeId, slaves: frozenset[SaeId]) -> Iterator[Buffer]:
        """The buffers of a master whose sets have one of these slaves (none given: all of the master's)."""
        return (
            buffer
            for buffer in self
            if buffer.key.master == master and (not slaves or not slaves.isdisjoint(buffer.key.slaves))
        )

    def drop_idle(self, now: float, idle: float = IDLE) -> None:
        """Forget buffers in which there is nothing and that nobody looked up for `idle` seconds."""
        self._buffers = {
            key: buffer for key, buffer in self._buffers.items() if not (buffer.idle and now - buffer.touched > idle)
        }
