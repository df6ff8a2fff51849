"""The module at the end that gets the keys over the channel."""

from __future__ import annotations

import asyncio
from pathlib import Path

from keyhaul.config.services import ModuleConfig
from keyhaul.randomness import Source
from services.qkdm.channel import ChannelLost, Connection, connections
from services.qkdm.condition import Change
from services.qkdm.end import OutOfStep
from services.qkdm.messages import Acknowledgement, Block, Command, Condition
from services.qkdm.module import Clock, Module
from services.qkdm.pair import Receiver

COMMAND_SECONDS = 3.0


class ReceivingModule(Module):
    """The end that gets the keys over the channel."""

    end: Receiver

    def __init__(self, config: ModuleConfig, directory: Path, source: Source, clock: Clock) -> None:
        super().__init__(config, directory, clock)
        self.end = Receiver(config.link, config.key_size, config.capacity, source)
        self._condition = Condition(False, 0.0, config.qber)
        self._reported: Acknowledgement | None = None
        self._reference = 0
        self._commands: dict[int, asyncio.Future[str | None]] = {}

    async def run(self) -> None:
        async for connection in connections(self.path):
            try:
                await self._serve(connection)
            except (ChannelLost, OutOfStep) as lost:
                self._lost(lost)
            finally:
                self._disconnected()
                self._condition = Condition(self._condition.cut, 0.0, self._condition.qber)
                connection.close()

    async def change(self, change: Change) -> None:
        if self._connection is None:
            raise ValueError(f"the transmitter of {self.link} is away; only it can {change.action} the link")
        self._reference += 1
        reference = self._reference
        done = self._commands[reference] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                await self._connection.send(Command(reference, change.action, change.qber, change.factor))
                error = await done
        except (TimeoutError, ChannelLost):
            raise ValueError(f"the transmitter of {self.link} does not answer") from None
        finally:
            del self._commands[reference]
        if error is not None:
            raise ValueError(error)

    @property
    def condition(self) -> Condition:
        return self._condition

    def keys_were_asked_for(self) -> None:
        """Tell the transmitter, which follows demand."""
        report = self.end.report()
        if self._connection is not None and report != self._reported and not self._connection.congested:
            self._connection.post(report)
            self._reported = report

    async def _serve(self, connection: Connection) -> None:
        message = await self._greet(connection)
        await connection.send(*self.end.receive(message, self._clock()))
        self._connected(connection)
        while True:
            message = await connection.receive()
            if isinstance(message, Condition):
                self._condition = message
                if message.reference is not None and message.reference in self._commands:
                    done = self._commands[message.reference]
                    if not done.done():
                        done.set_result(message.error)
                continue
            await connection.send(*self.end.receive(message, self._clock()))
            if isinstance(message, Block):
                self._condition = Condition(False, message.rate, message.qber)
