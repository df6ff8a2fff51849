"""The connection of a command to the controller that leads. Imported when a command runs, since it takes its time."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import structlog

from controller.command.places import Places
from keyhaul.command.output import UNREACHABLE, Failed, wait_for
from keyhaul.identity.errors import IdentityError
from keyhaul.identity.files import ServiceIdentity, load_certificates
from keyhaul.identity.names import MalformedName, ServiceName
from keyhaul.identity.verify import certificate_name
from keyhaul.transport.channel import Channel
from keyhaul.transport.messages import network
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.operations import NETWORK_STATUS, Operation, Reply, Request
from keyhaul.transport.tls import service_client
from keyhaul.transport.tls_policy import TlsUnusable

Result = TypeVar("Result")

DEADLINE = 30.0
"""Seconds for one answer."""
REACHED_WITHIN = 5.0
"""Seconds in which a controller must answer for the first time."""
FOLLOWED_WITHIN = 2.0
"""Seconds in which one must answer later, where another may lead."""


class Session:
    """A way to the controllers: to the one that leads, or else to one that answers, as it was when last looked."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        """Turn to the first of them; `follow` looks which one leads."""
        self._channels = channels
        self._channel = channels[0]

    @property
    def name(self) -> str:
        """Of the controller that is asked."""
        return self._channel.peer.id

    async def follow(self, within: float = FOLLOWED_WITHIN) -> network.Status:
        """Turn to the controller that leads, or else to one that answers; return what it says of itself.

        Args:
            within: seconds in which they must answer.

        Raises:
            Failed: none answers.
            click.ClickException: a controller accepts no such certificate.
        """
        asked = [asyncio.create_task(_status(channel, within)) for channel in self._channels]
        silent: dict[Channel, str] = {}
        standing_by: dict[Channel, network.Status] = {}
        try:
            for answer in asyncio.as_completed(asked):
                channel, found = await answer
                if isinstance(found, str):
                    silent[channel] = found
                elif found.leads:
                    self._channel = channel
                    return found
                else:
                    standing_by[channel] = found
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        if not standing_by:
            raise Failed("; ".join(silent[channel] for channel in self._channels), UNREACHABLE)
        if self._channel not in standing_by:
            self._channel = next(iter(standing_by))
        return standing_by[self._channel]

    async def call(self, operation: Operation[Request, Reply], request: Request) -> Reply:
        """Ask.

        Raises:
            Failed: the controller refuses, or does not answer any more.
        """
        try:
            return await self._channel.call(operation, request, deadline=DEADLINE)
        except ServiceError as error:
            code = UNREACHABLE if error.code in (ErrorCode.UNREACHABLE, ErrorCode.DEADLINE) else 1
            raise Failed(_told(self._channel, error), code) from None
        except ValueError as error:
            raise click.ClickException(f"{error}: show the certificate of one who may, by --identity") from None

    async def all(self, operation: Operation[network.Page, Reply], field: str) -> list[Any]:
        """All of a list that comes in pages; `field` of each reply has its part."""
        found: list[Any] = []
        start: int | None = 0
        while start is not None:
            page: Any = await self.call(operation, network.Page(start=start))
            found += getattr(page, field)
            start = page.next
        return found


def ask(where: Places, work: Callable[[Session], Awaitable[Result]]) -> Result:
    """Do the work of a command with the controller that leads, or else with one that answers.

    Raises:
        click.ClickException: what went wrong, as a command says it.
    """

    async def connected() -> Result:
        async with session(where) as there:
            return await work(there)

    return wait_for(connected())


@asynccontextmanager
async def session(where: Places) -> AsyncIterator[Session]:
    """A connection to the controller that leads, or else to one that answers.

    Raises:
        click.ClickException: none can be reached, or the certificate is not one that it accepts.
    """
    with _quiet():
        async with AsyncExitStack() as stack:
            channels = _channels(where)
            for channel in channels:
                await channel.start()
                stack.push_async_callback(channel.close)
            there = Session(channels)
            await there.follow(REACHED_WITHIN)
            yield there


def _channels(where: Places) -> list[Channel]:
    try:
        identity = _identity(where.identity)
        tls = service_client(identity)
        return [
            Channel(identity.name, ServiceName.of(identity.name.domain, service), address, tls)
            for service, address in where.controllers
        ]
    except (IdentityError, MalformedName, TlsUnusable) as error:
        raise click.ClickException(str(error)) from None


async def _status(channel: Channel, within: float) -> tuple[Channel, network.Status | str]:
    """What a controller says of itself, or why it does not."""
    try:
        return channel, await channel.call(NETWORK_STATUS, network.Ask(), deadline=within)
    except ServiceError as error:
        if error.code in (ErrorCode.UNREACHABLE, ErrorCode.DEADLINE):
            return channel, _told(channel, error)
        raise click.ClickException(_told(channel, error)) from None
    except ValueError as error:
        raise click.ClickException(f"{error}: show the certificate of a viewer or an operator") from None


def _told(channel: Channel, error: ServiceError) -> str:
    """What went wrong, with whose name."""
    return str(error) if str(error).startswith(channel.peer.id) else f"{channel.peer.id}: {error}"


def _identity(directory: Path) -> ServiceIdentity:
    certificate, lists = directory / "certificate.pem", directory / "crl.pem"
    return ServiceIdentity(
        name=certificate_name(load_certificates(certificate)[0]),
        certificate=certificate,
        key=directory / "key.pem",
        trust=directory / "trust.pem",
        crl=lists if lists.exists() else None,
        classic_certificate=None,
        classic_key=None,
        link_key_path=None,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Let the transport log nothing: what went wrong is the command's to say."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        yield
    finally:
        structlog.configure(**before)
