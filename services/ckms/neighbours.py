"""The neighbours of a CKMS: to each a channel, a link over it, and the QKD module of this end. They come and go while
the service runs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

from keyhaul.config.loader import resolve
from keyhaul.config.services import LinkSection
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.keys import load_link_public
from keyhaul.identity.names import ServiceName
from keyhaul.link.bootstrap import bootstrap_secret
from keyhaul.link.links import Links
from keyhaul.link.module import module_client
from keyhaul.runtime.interface import Runtime, StartError
from keyhaul.transport.channel import Channel
from keyhaul.transport.tls import TlsContext
from services.ckms.agent.parts import AgentLink


@dataclass(frozen=True, slots=True)
class Prepared:
    """A link whose files were read and found good; nothing has begun."""

    section: LinkSection
    address: str
    peer_key: MLDSA65PublicKey


class Neighbours:
    """Those that this CKMS has now.

    Args:
        own: this service.
        directory: what paths in link sections are relative to.
        identity: of this service.
        tls: for channels.
        links: where links are added and removed.
        runtime: for metrics.
    """

    def __init__(
        self,
        own: ServiceName,
        directory: Path,
        identity: ServiceIdentity,
        tls: TlsContext,
        links: Links,
        runtime: Runtime,
    ) -> None:
        self._own = own
        self._directory = directory
        self._identity = identity
        self._tls = tls
        self._links = links
        self._runtime = runtime
        self._joined: dict[str, AgentLink] = {}

    @property
    def told(self) -> list[AgentLink]:
        """The links, with all that an agent tells of them."""
        return list(self._joined.values())

    @property
    def sections(self) -> dict[str, LinkSection]:
        """The configuration of each link that is in force, by its id."""
        return {link: joined.section for link, joined in self._joined.items()}

    async def join(self, prepared: Prepared) -> AgentLink:
        """Make a link and dial the neighbour; `Links.start` or `Links.begin` begins it.

        Raises:
            StartError: the section makes no sense, or there is a link of this name or to this neighbour.
        """
        section = prepared.section
        neighbour = ServiceName.of(self._own.domain, section.neighbour)
        channel = Channel(self._own, neighbour, prepared.address, self._tls, registry=self._runtime.registry)
        module = module_client(section, self._directory, self._identity)
        try:
            link = self._links.add(section, channel, prepared.peer_key, module)
        except StartError:
            await module.close()
            raise
        joined = self._joined[section.id] = AgentLink(section, link, module, channel)
        await channel.start()
        return joined

    def allow(self, link_id: str, allowed: bool) -> None:
        """Use a link or not, as its configuration says now."""
        joined = self._joined[link_id]
        section = msgspec.structs.replace(joined.section, enabled=allowed)
        self._joined[link_id] = replace(joined, section=section)
        self._links.allow(link_id, allowed)

    async def leave(self, link_id: str) -> None:
        """End a link at this end, with its channel."""
        joined = self._joined.pop(link_id)
        await self._links.remove(link_id)
        await _close(joined)

    async def close(self) -> None:
        """Close all channels and the ways to the modules; the links have been closed."""
        await asyncio.gather(*(_close(joined) for joined in self._joined.values()))


def prepare(section: LinkSection, directory: Path) -> Prepared:
    """Read what a link's section names.

    Raises:
        StartError: the section lacks something, or the bootstrap secret cannot be used.
        IdentityError: the neighbour's key cannot be.
    """
    if section.address is None:
        raise StartError(f"link {section.id}: a CKMS dials its neighbours: give the neighbour's address")
    bootstrap_secret(section, directory)
    return Prepared(section, section.address, load_link_public(resolve(directory, section.peer_link_key)))


async def _close(joined: AgentLink) -> None:
    await joined.channel.close()
    await joined.module.close()
