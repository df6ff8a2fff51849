"""A changed configuration of a running CKMS: links that come, go, or are switched off, and rows of the forwarding
table. What it says of all else, and of a link that stays, needs a restart.

Nothing is touched of a link that stays: its session, pads and what is in flight over it go on. A link that goes is
waited for until nothing in flight concerns it any more, for `DRAIN` seconds at most.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog

from keyhaul.config.services import CkmsConfig, LinkSection
from keyhaul.identity.errors import IdentityError
from keyhaul.link.links import Links
from keyhaul.runtime.interface import NotTaken, StartError
from keyhaul.store.interface import StoreError
from services.ckms.agent.parts import Parts
from services.ckms.choice import PathChoice
from services.ckms.neighbours import Neighbours, Prepared, prepare
from services.ckms.static import configure

if TYPE_CHECKING:
    from services.ckms.agent.agent import Agent

TABLES = ("link", "entry", "path")
"""What of the configuration is taken while the service runs."""

DRAIN = 5.0
"""Seconds for what is in flight over a link that goes."""

LOOK = 0.05

_log = structlog.get_logger(__name__)


class Reload:
    """Takes changed configurations.

    Args:
        directory: what paths in them are relative to.
        neighbours: those that there are.
        links: the links to them.
        parts: the table where their rows go, what is in flight, and what a controller said.
        choice: which paths have failed.
        agent: tells a controller of the links; None: nobody is told.
    """

    def __init__(
        self,
        directory: Path,
        neighbours: Neighbours,
        links: Links,
        parts: Parts,
        choice: PathChoice,
        agent: Agent | None,
    ) -> None:
        self._directory = directory
        self._neighbours = neighbours
        self._links = links
        self._parts = parts
        self._choice = choice
        self._agent = agent

    async def take(self, config: CkmsConfig) -> list[str]:
        """Put a configuration in force, and return what only a restart brings.

        Raises:
            NotTaken: it cannot be; nothing has changed.
        """
        present = self._neighbours.sections
        wanted = {section.id: section for section in config.link}
        new = self._prepared([section for link, section in wanted.items() if link not in present], present)
        gone = [link for link in present if link not in wanted]
        try:
            for one in new:
                await self._begin(one)
            await self._configure(config)
        except (StartError, StoreError) as error:
            for one in new:
                if one.section.id in self._neighbours.sections:
                    await self._leave(one.section)
            raise NotTaken(str(error)) from None
        await asyncio.gather(*(self._end(present[link]) for link in gone))
        rest = []
        for link, before in present.items():
            if link in wanted:
                rest += self._change(before, wanted[link])
        return rest

    def _prepared(self, sections: list[LinkSection], present: dict[str, LinkSection]) -> list[Prepared]:
        neighbours = {section.neighbour: link for link, section in present.items()}
        found = []
        for section in sections:
            if section.neighbour in neighbours:
                former = neighbours[section.neighbour]
                raise NotTaken(f"link {section.id}: there is one to {section.neighbour} already, {former}")
            try:
                found.append(prepare(section, self._directory))
            except (StartError, IdentityError) as error:
                raise NotTaken(str(error)) from None
        return found

    async def _begin(self, prepared: Prepared) -> None:
        section = prepared.section
        joined = await self._neighbours.join(prepared)
        if self._parts.steering is not None:
            self._links.on_store_older(section.id, self._parts.steering.found_older)
        await self._links.begin(section.id)
        if self._agent is not None:
            self._agent.add(joined)
        _log.info("link added", link=section.id, neighbour=section.neighbour)

    async def _configure(self, config: CkmsConfig) -> None:
        table, steering = self._parts.table, self._parts.steering
        if steering is None:
            configure(table, config)
        else:
            async with steering.changing:
                configure(table, config)
        self._choice.forget(table.paths)

    async def _end(self, section: LinkSection) -> None:
        patience = DRAIN
        while patience > 0 and self._parts.relay.concerns(section.neighbour):
            await asyncio.sleep(LOOK)
            patience -= LOOK
        await self._leave(section)

    async def _leave(self, section: LinkSection) -> None:
        if self._agent is not None:
            self._agent.remove(section.id)
        await self._neighbours.leave(section.id)
        _log.info("link removed", link=section.id, neighbour=section.neighbour)

    def _change(self, before: LinkSection, after: LinkSection) -> list[str]:
        if before.enabled != after.enabled:
            self._neighbours.allow(before.id, after.enabled)
            _log.info("link enabled" if after.enabled else "link disabled", link=before.id)
        return [
            f"link {before.id}: {field.encode_name}"
            for field in msgspec.structs.fields(LinkSection)
            if field.name != "enabled" and getattr(before, field.name) != getattr(after, field.name)
        ]
