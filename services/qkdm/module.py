"""One module of a node at work: its end of the pair, its KME, and the link as it sees it."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from keyhaul.config.loader import parse_address, resolve
from keyhaul.config.services import ModuleConfig
from keyhaul.transport.tls import classic_server
from services.qkdm.channel import ChannelLost, Connection
from services.qkdm.condition import Change
from services.qkdm.end import End, Mismatch
from services.qkdm.generator import QBER_LIMIT
from services.qkdm.kme import KmeServer
from services.qkdm.messages import Condition, Message
from services.qkdm.requests import Answer, Kme, Names, Request

HELLO_SECONDS = 5.0
"""How long the other end's first message may take."""

Clock = Callable[[], float]

log = structlog.get_logger(__name__)


class Module(ABC):
    """One end of one link."""

    end: End

    def __init__(self, config: ModuleConfig, directory: Path, clock: Clock) -> None:
        self.config = config
        self.path = resolve(directory, config.channel)
        self._directory = directory
        self._clock = clock
        self._connection: Connection | None = None
        self._server: KmeServer | None = None
        self._mismatch = ""

    @property
    def link(self) -> str:
        """The link's name."""
        return self.config.link

    @property
    def address(self) -> tuple[str, int]:
        """Host and port where the KME listens."""
        assert self._server is not None
        return self._server.address

    async def start(self) -> None:
        """Open the KME.

        Raises:
            StartError: a certificate file cannot be used.
            OSError: an address cannot be listened on.
        """
        config, directory = self.config, self._directory
        tls = classic_server(
            resolve(directory, config.certificate), resolve(directory, config.key), resolve(directory, config.trust)
        )
        kme = Kme(Names(config.kme, config.peer_kme, config.sae, config.peer_sae), self.end)

        def answer(request: Request) -> Answer:
            answer = kme.answer(request, self._clock(), self._expected_rate(), self._figures())
            self.keys_were_asked_for()
            return answer

        host, port = parse_address(config.address)
        self._server = KmeServer(host, port, tls, answer)
        await self._server.start()

    async def close(self) -> None:
        """Close the KME and wipe the store."""
        if self._server is not None:
            await self._server.close()
        self.end.store.clear()

    @abstractmethod
    async def run(self) -> None:
        """Keep the pair in step with the other end, for ever."""

    @abstractmethod
    async def change(self, change: Change) -> None:
        """Cut, degrade or restore the link.

        Raises:
            ValueError: it cannot be done.
        """

    @property
    @abstractmethod
    def condition(self) -> Condition:
        """The link as it is now, as far as this end knows."""

    @abstractmethod
    def keys_were_asked_for(self) -> None:
        """The KMS at this end has just sent a request."""

    def facts(self) -> dict[str, Any]:
        """What operators may know of this module."""
        end, condition = self.end, self.condition
        return {
            "link": self.link,
            "kme": self.config.kme,
            "peer_kme": self.config.peer_kme,
            "transmitter": end.transmitter,
            "synchronised": end.synchronised,
            "cut": condition.cut,
            "rate": round(condition.rate, 3),
            "qber": round(condition.qber, 6),
            "stored": {"enc_keys": end.level, "dec_keys": len(end.store.peer)},
            "capacity": {"enc_keys": end.capacity, "dec_keys": end.store.peer.capacity},
            "generated": end.counters.generated,
            "delivered": {"enc_keys": end.demand.given, "dec_keys": end.counters.fetched},
            "refused": end.demand.refused,
            "dropped": {
                "overflow": end.counters.overflowed,
                "unsynchronised": end.counters.unsynchronised,
                "lost": end.counters.lost,
            },
        }

    def _expected_rate(self) -> float:
        """Bits per second by which to estimate when there will be more keys."""
        if self.condition.cut:
            return 0.0
        if not self.end.synchronised:
            return math.inf
        return self.condition.rate or self.config.rate

    def _figures(self) -> dict[str, float]:
        """What the status tells beside what the standard has: bits per second, and the error ratio, 0 to 1."""
        condition = self.condition
        works = self.end.synchronised and not condition.cut and condition.qber <= QBER_LIMIT
        rate = condition.rate or self.config.rate if works else 0.0
        return {"secret_key_rate": round(rate, 3), "qber": round(condition.qber, 6)}

    def _connected(self, connection: Connection) -> None:
        self._connection = connection
        self._mismatch = ""
        log.info("the pair is in step", link=self.link, kme=self.config.kme)

    def _lost(self, error: Exception) -> None:
        if isinstance(error, Mismatch):
            if str(error) != self._mismatch:
                log.error("the ends of the pair do not match", link=self.link, reason=str(error))
            self._mismatch = str(error)
        elif self.end.synchronised:
            log.warning("the pair is out of step", link=self.link, reason=str(error))
        self._disconnected()

    def _disconnected(self) -> None:
        self._connection = None
        self.end.disconnected()

    async def _greet(self, connection: Connection) -> Message:
        await connection.send(self.end.hello())
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                return await connection.receive()
        except TimeoutError:
            raise ChannelLost("the other end says nothing") from None
