"""The agent as a service runs it: the tree of this CKMS on a gNMI target, and what operators see of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

from keyhaul.agents.gnmi.data import BrokenData
from keyhaul.agents.gnmi.errors import Code, Refused
from keyhaul.agents.gnmi.limits import Limits
from keyhaul.agents.gnmi.models import ckms, etsi015
from keyhaul.agents.gnmi.peers import Peers, Rpc
from keyhaul.agents.gnmi.schema import Schema
from keyhaul.agents.gnmi.target import Target, serve
from keyhaul.agents.gnmi.tree import DataTree
from keyhaul.config.loader import resolve
from keyhaul.config.services import GnmiSection
from keyhaul.identity.errors import IdentityError
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.names import ServiceName
from keyhaul.randomness import identifier
from keyhaul.runtime.interface import Runtime, StartError
from keyhaul.runtime.version import suite_version
from keyhaul.transport.tls import TlsFiles
from keyhaul.transport.tls_policy import TlsUnusable
from services.ckms.agent.etsi015 import QkdNode
from services.ckms.agent.facts import CarrierFacts, Node, TellingLink
from services.ckms.agent.metrics import AgentCollector
from services.ckms.agent.modules import Modules, Watched
from services.ckms.agent.parts import AgentLink, Parts
from services.ckms.agent.writer import StatementWriter

LIMITS = Limits(look=0.1)
"""A link that goes down is told within a tenth of a second."""

CLOSING = 0.3
"""Seconds that RPCs may take to end when the service does."""


class Agent:
    """Tells of a CKMS's parts; `start` once the links have been started."""

    def __init__(self, own: ServiceName, links: Sequence[AgentLink], parts: Parts, runtime: Runtime) -> None:
        self._own = own
        self._runtime = runtime
        self._target: Target | None = None
        self._refusals: dict[str, int] = {}
        self._modules = Modules({}, lambda: self.subscriptions > 0)
        self._links: list[TellingLink] = []
        for each in links:
            self.add(each)
        incarnation = identifier() if parts.steering is None else parts.steering.incarnation
        node = Node(own.id, suite_version(), incarnation)
        facts = CarrierFacts(node, self._links, parts.relay, parts.table, parts.steering, time.monotonic)
        standard = QkdNode(own, node.version, self._links, parts.table)
        sources = {
            f"/{ckms.TOP}": facts.service,
            f"/{ckms.TOP}/links": facts.links,
            f"/{ckms.TOP}/relay": facts.relay,
            f"/{ckms.TOP}/forwarding": facts.forwarding,
            f"/{etsi015.TOP}": standard.members,
        }
        writers = {}
        if parts.steering is not None:
            writers[f"/{ckms.TOP}/forwarding/statement"] = StatementWriter(parts.steering)
        self._tree = DataTree(Schema([ckms.MODULE, etsi015.MODULE]), sources, writers)
        runtime.registry.register(AgentCollector(self))

    @property
    def subscriptions(self) -> int:
        """How many Subscribe RPCs stand."""
        return 0 if self._target is None else self._target.streams

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections came, and how many of them came to an RPC."""
        if self._target is None:
            return 0, 0
        return self._target.handshakes.begun_total, self._target.handshakes.proved_total

    @property
    def refusals(self) -> Mapping[str, int]:
        """RPCs that were refused, by the name of the status code."""
        return self._refusals

    async def start(
        self, section: GnmiSection, directory: Path, identity: ServiceIdentity, closing: AsyncExitStack
    ) -> None:
        """Listen, until `closing` is.

        Raises:
            StartError: the configuration's files cannot be used, nothing can listen at the address, or this node has
                names that the YANG module does not allow.
        """
        if identity.classic_certificate is None or identity.classic_key is None:
            raise StartError("[gnmi] needs classic_certificate and classic_key in the table [identity]")
        files = TlsFiles(
            identity.classic_certificate,
            identity.classic_key,
            resolve(directory, section.trust),
            None if section.crl is None else resolve(directory, section.crl),
        )
        try:
            self._tree.refresh()
            self._target = Target(self._tree, Peers(files, self._own.domain), limits=LIMITS, refused=self._refused)
            server = await serve(self._target, section.address, files, LIMITS)
        except BrokenData as error:
            raise StartError(f"what this node would tell its controller is not as its YANG module: {error}") from None
        except (IdentityError, TlsUnusable) as error:
            raise StartError(f"[gnmi]: {error}") from None
        closing.push_async_callback(self._target.finish)
        closing.push_async_callback(server.stop, CLOSING)
        asking = self._runtime.task(self._modules.run(), "modules")
        closing.push_async_callback(_end, asking)

    def add(self, each: AgentLink) -> None:
        """Tell of a link, too."""
        section, modules = each.section, self._modules
        modules.add(section.id, _watched(each))
        taken = {link.number for link in self._links}
        self._links.append(
            TellingLink(
                each.link,
                section.pool + section.reserve,
                rate=lambda: modules.rate(section.id),
                qber=lambda: modules.qber(section.id),
                round_trip=lambda: each.channel.round_trip,
                module_answers=lambda: modules.answers(section.id),
                number=next(number for number in count(1) if number not in taken),
            )
        )

    def remove(self, link: str) -> None:
        """Tell of a link no more, if it is told of."""
        self._links[:] = [each for each in self._links if each.link.id != link]
        self._modules.remove(link)

    def _refused(self, rpc: Rpc, peer: ServiceName | None, refused: Refused) -> None:
        self._refusals[refused.code.name] = self._refusals.get(refused.code.name, 0) + 1
        # A controller that was let in: what it asks for in vain is counted, what it states has an alarm of its own.
        if refused.code is Code.UNAUTHENTICATED or (peer is None and refused.code is Code.PERMISSION_DENIED):
            self._runtime.alarm("gnmi-refused", rpc=rpc.value, why=refused.message)


def _watched(each: AgentLink) -> Watched:
    link, section = each.link, each.section

    def taken() -> int:
        status = link.status()
        return status.outgoing.added_total + status.incoming.added_total

    return Watched(each.module, section.module.peer_sae, section.rate, taken)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
