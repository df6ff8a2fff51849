"""Takes in what the AKMS pushes: durable first, and in the same transaction handed to those who wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from keyhaul.identity.names import SaeId
from keyhaul.keys.material import KeyId, KeyMaterial
from keyhaul.store.interface import StoreError
from keyhaul.transport.messages.access import Held, Push
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from services.ukms.answering import Answering
from services.ukms.buffer import Buffer, BufferKey
from services.ukms.buffers import Buffers
from services.ukms.copies import MissingCopies
from services.ukms.filling import Filling
from services.ukms.leases import Stored
from services.ukms.metrics import Metrics
from services.ukms.pushes import material_of
from services.ukms.vault import Vault
from services.ukms.waiting import BufferFull

log = structlog.get_logger(__name__)


class Intake:
    """The pushes to one UKMS."""

    def __init__(
        self,
        buffers: Buffers,
        vault: Vault,
        answering: Answering,
        filling: Filling,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, None]], bool],
        serve_again: Callable[[Buffer], None],
    ) -> None:
        """Prepare.

        Args:
            buffers: where keys go that nobody waits for.
            vault: the durable keys.
            answering: those who wait.
            filling: what was asked for.
            metrics: what is counted.
            clock: seconds of this node's clock.
            spawn: runs work in the background; False, and the work is not begun, where nothing more is taken on.
            serve_again: called when requests wait again that were allotted keys in vain, and when keys are at hand
                that were allotted to nobody: somebody may have begun to wait meanwhile.
        """
        self._buffers = buffers
        self._vault = vault
        self._answering = answering
        self._filling = filling
        self._metrics = metrics
        self._clock = clock
        self._spawn = spawn
        self._serve_again = serve_again

    async def push(self, push: Push, secret: bytes) -> Held:
        """Take in a push: durable when this returns. It may be repeated, and goes on if its caller gives up.

        Raises:
            ServiceError: malformed; conflict; not-found (this UKMS did not ask for it); busy; internal; unreachable.
        """
        material = material_of(push, secret)
        done: asyncio.Future[Held] = asyncio.get_running_loop().create_future()
        if not self._spawn(self._take_in(push, material, done)):
            raise ServiceError(ErrorCode.UNREACHABLE, "the service is stopping")
        return await done

    async def _take_in(self, push: Push, material: dict[KeyId, KeyMaterial], done: asyncio.Future[Held]) -> None:
        try:
            await self._store(push, material)
        except ServiceError as error:
            _settle(done, error)
        except (StoreError, BufferFull) as error:
            log.error("a push was not taken in", error=str(error))
            _settle(done, ServiceError(ErrorCode.BUSY))
        else:
            if not done.done():
                done.set_result(Held(batch=push.batch, store=self._vault.store_id))
        finally:
            for bits in material.values():
                bits.wipe()

    async def _store(self, push: Push, material: dict[KeyId, KeyMaterial]) -> None:
        now = self._clock()
        until = now + push.lifetime_ms / 1000
        slaves_until = now + max(push.lifetime_ms, push.slave_lifetime_ms) / 1000
        if not push.for_master:
            await self._vault.arrive(push, material, until, slaves_until, ())
            self._metrics.pushed.inc(len(material))
            return
        slaves = tuple(SaeId(name) for name in push.slaves)
        key = BufferKey(SaeId(push.master), frozenset(slaves), push.size, push.service_class)
        buffer = self._buffers.buffer(key, slaves, self._clock())
        arriving = [Stored(key_id, until, push.batch, position) for position, key_id in enumerate(push.key_ids)]
        while True:
            allotments, rest = buffer.allot(arriving, self._clock())
            revocations = self._answering.revocations
            try:
                new, keys = await self._vault.arrive(push, material, until, slaves_until, allotments)
            except MissingCopies as lost:
                self._answering.undo(buffer, allotments, {*material, *lost.missing}, revocations)
                continue
            except ServiceError:
                self._answering.undo(buffer, allotments, set(material), revocations)
                self._serve_again(buffer)
                raise
            except StoreError:
                self._answering.give_up(buffer, allotments)
                raise
            break
        if not new:
            self._answering.undo(buffer, allotments, set(material), revocations)
            self._serve_again(buffer)
            return
        self._metrics.pushed.inc(len(material))
        if rest:
            buffer.put(rest)
            self._serve_again(buffer)
        self._filling.arrived(push.request, len(push.key_ids), buffer)
        for allotment, found in zip(allotments, keys, strict=True):
            copies = [(key_id, KeyMaterial(bits.reveal())) for key_id, bits in found]
            self._answering.hand_over(buffer, allotment, copies)
        self._filling.fill(buffer)


def _settle(done: asyncio.Future[Held], error: ServiceError) -> None:
    if not done.done():
        done.set_exception(error)
