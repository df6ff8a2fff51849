"""The module at the end that distils the keys, and decides when."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import structlog

from keyhaul.config.services import ModuleConfig
from keyhaul.randomness import Source
from services.qkdm.channel import ChannelLost, Connection, Listening
from services.qkdm.condition import Change
from services.qkdm.end import OutOfStep
from services.qkdm.generator import Characteristics, Generator
from services.qkdm.messages import MAXIMUM_BLOCK, Command, Condition
from services.qkdm.module import Clock, Module
from services.qkdm.pair import Transmitter

SHORTEST_STEP = 0.02
"""Seconds: keys that fall due closer together travel in one block."""
STOCK_BLOCK = 512
"""Keys per block of the stock."""

assert STOCK_BLOCK <= MAXIMUM_BLOCK

log = structlog.get_logger(__name__)


class TransmittingModule(Module):
    """The end that distils, and decides when."""

    end: Transmitter

    def __init__(self, config: ModuleConfig, directory: Path, source: Source, clock: Clock) -> None:
        super().__init__(config, directory, clock)
        self.end = Transmitter(config.link, config.key_size, config.capacity, source)
        self._generator = Generator(
            Characteristics(
                rate=config.rate,
                rate_deviation=config.rate_deviation,
                qber=config.qber,
                qber_deviation=config.qber_deviation,
                block=config.block,
                key_size=config.key_size,
                fixed_rate=config.fixed_rate,
            ),
            source,
        )
        self._listening = Listening(self.path)
        self._changed = asyncio.Event()

    async def start(self) -> None:
        await self._listening.start()
        await super().start()

    async def close(self) -> None:
        await self._listening.close()
        await super().close()

    async def run(self) -> None:
        while True:
            connection = await self._listening.accept()
            try:
                await self._serve(connection)
            except (ChannelLost, OutOfStep) as lost:
                self._lost(lost)
            finally:
                self._generator.pause()
                self._disconnected()
                connection.close()

    async def change(self, change: Change) -> None:
        change.apply(self._generator, self._clock())
        self._changed.set()
        log.warning(
            "the link was changed", link=self.link, action=change.action, qber=change.qber, factor=change.factor
        )

    @property
    def condition(self) -> Condition:
        return Condition(self._generator.is_cut, self._generator.rate, self._generator.qber)

    def keys_were_asked_for(self) -> None:
        """Nothing is to be told: demand at this end is looked at when the next block is made."""

    async def _serve(self, connection: Connection) -> None:
        hello = await self._greet(connection)
        await connection.send(*self.end.receive(hello, self._clock()), self.condition)
        self._connected(connection)
        both = [asyncio.create_task(work) for work in (self._read(connection), self._distil(connection))]
        try:
            done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _read(self, connection: Connection) -> None:
        while True:
            message = await connection.receive()
            if isinstance(message, Command):
                await connection.send(await self._obey(message))
            else:
                await connection.send(*self.end.receive(message, self._clock()))

    async def _obey(self, command: Command) -> Condition:
        error = None
        try:
            await self.change(Change(command.action, command.qber, command.factor))
        except ValueError as refused:
            error = str(refused)
        now = self.condition
        return Condition(now.cut, now.rate, now.qber, command.reference, error)

    async def _distil(self, connection: Connection) -> None:
        generator = self._generator
        if self.end.needs_stock and not generator.is_cut:
            await self._make(connection, min(generator.keys_in(self.config.stock), 2 * self.end.capacity))
        generator.resume(self._clock())
        while True:
            due = generator.due
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(SHORTEST_STEP, due - self._clock())):
                    await self._changed.wait()
                    await connection.send(self.condition)
            bursts = generator.advance(self._clock())
            keys = sum(burst.keys for burst in bursts)
            if keys:
                await self._make(connection, keys)
            elif bursts:
                await connection.send(self.condition)

    async def _make(self, connection: Connection, count: int) -> None:
        for made in range(0, count, STOCK_BLOCK):
            size = min(STOCK_BLOCK, count - made)
            block = self.end.produce(size, self._clock(), rate=self._generator.rate, qber=self._generator.qber)
            if block is not None:
                await connection.send(block)
                await asyncio.sleep(0)
