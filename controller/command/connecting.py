"""The connection of a command to the controller that leads. Imported when a command runs, since it takes its time."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import structlog

from controller.command.places import Places
from keyhaul.command.output import Failed, wait_for
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

UNREACHABLE = 69
DEADLINE = 30.0
"""Seconds for one answer."""
REACHED_WITHIN = 5.0
"""Seconds in which a controller must answer for the first time."""


class Session:
    """A controller that answers."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.name = channel.peer.id

    async def call(self, operation: Operation[Request, Reply], request: Request) -> Reply:
        """Ask.

        Raises:
            Failed: the controller refuses, or does not answer any more.
        """
        try:
            return await self._channel.call(operation, request, deadline=DEADLINE)
        except ServiceError as error:
            code = UNREACHABLE if error.code in (ErrorCode.UNREACHABLE, ErrorCode.DEADLINE) else 1
            raise Failed(f"{self.name}: {error}", code) from None
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
            channels = []
            for channel in _channels(where):
                await channel.start()
                stack.push_async_callback(channel.close)
                channels.append(channel)
            answers = await asyncio.gather(*map(_status, channels))
            there = [(one, found) for one, found in zip(channels, answers, strict=True) if not isinstance(found, str)]
            if not there:
                raise Failed("; ".join(str(found) for found in answers), UNREACHABLE)
            yield Session(next((one for one, found in there if found.leads), there[0][0]))


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


async def _status(channel: Channel) -> network.Status | str:
    """What a controller says of itself, or why it does not."""
    try:
        return await channel.call(NETWORK_STATUS, network.Ask(), deadline=REACHED_WITHIN)
    except ServiceError as error:
        told = str(error) if str(error).startswith(channel.peer.id) else f"{channel.peer.id}: {error}"
        if error.code in (ErrorCode.UNREACHABLE, ErrorCode.DEADLINE):
            return told
        raise click.ClickException(told) from None
    except ValueError as error:
        raise click.ClickException(f"{error}: show the certificate of a viewer or an operator") from None


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
