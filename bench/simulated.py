"""A simulated CKMS: a real gNMI target with mutual TLS and the YANG module of real ones, over simulated links.

Its agent is `keyhaul.agents.gnmi`'s target; statements are taken by the same code as in a CKMS (`Installed`), which
verifies their signatures unless it is told not to, and kept in memory. There are no keys, no store and no neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import msgspec
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

from bench.pools import SimulatedLink
from keyhaul.agents.gnmi.limits import Limits
from keyhaul.agents.gnmi.models import ckms
from keyhaul.agents.gnmi.peers import Peers
from keyhaul.agents.gnmi.schema import Schema
from keyhaul.agents.gnmi.target import Target, serve
from keyhaul.agents.gnmi.tree import UNCHANGED, DataTree
from keyhaul.agents.signing import SignedStatement
from keyhaul.agents.statements import Statement
from keyhaul.randomness import identifier
from keyhaul.transport.tls import TlsFiles
from services.ckms.agent.writer import StatementWriter
from services.ckms.forwarding import Entry, ForwardingTable, Path
from services.ckms.installed import Installed

SCHEMA = Schema([ckms.MODULE])
REVALIDATE = 60.0

HARD_LIMIT = 1e6
_STATEMENT = msgspec.json.Decoder(Statement)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one node is, and who it is."""

    node: str
    address: str
    domain: str
    files: TlsFiles


class SimulatedNode:
    """One CKMS.

    Args:
        place: where it serves.
        links: of this node, by neighbour.
        keys: the pinned statement keys.
        verify: whether signatures of statements are verified.
        look: seconds between two looks for changes; links that go or come are told at once.
        accepted: told of each Set that took effect, with the number of its statements.
    """

    def __init__(
        self,
        place: Place,
        links: Mapping[str, SimulatedLink],
        keys: list[MLDSA65PublicKey],
        *,
        verify: bool,
        look: float,
        accepted: Callable[[SimulatedNode, int], None],
    ) -> None:
        self.place = place
        self.links = links
        self.incarnation = identifier()
        self.table = ForwardingTable(place.node, links, delivers=True)
        self._installed = Installed(place.node, self.incarnation, keys, self.table, hard_limit=HARD_LIMIT)
        self._verify = verify
        self._limits = Limits(look=look, fresh=look / 2, revalidate=REVALIDATE)
        self._accepted = accepted
        self._told = -1
        self._tree = DataTree(
            SCHEMA,
            {
                f"/{ckms.TOP}": self._service,
                f"/{ckms.TOP}/links": self._links,
                f"/{ckms.TOP}/forwarding": self._forwarding,
            },
            {f"/{ckms.TOP}/forwarding/statement": StatementWriter(self)},
        )
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Serve."""
        place = self.place
        self._tree.refresh()
        target = Target(self._tree, Peers(place.files, place.domain), limits=self._limits)
        self._server = await serve(target, place.address, place.files, self._limits)

    async def stop(self) -> None:
        """Serve no more, at once."""
        if self._server is not None:
            await self._server.stop(None)

    def changed(self) -> None:
        """A link went or came: tell it now."""
        self._tree.refresh()

    async def accept(self, offered: Mapping[int, SignedStatement]) -> None:
        """Take statements, all or none (`services.ckms.agent.writer.Accepting`)."""
        now, installed = time.monotonic(), self._installed
        if self._verify:
            said = installed.verified(offered)
        else:
            said = [(_STATEMENT.decode(signed.body), signed) for _, signed in sorted(offered.items())]
        installed.take(installed.consider(said, now))
        installed.heard(now)
        self._accepted(self, len(said))

    def _service(self) -> dict[str, Any]:
        return {"service-id": self.place.node, "version": "simulated", "incarnation": self.incarnation}

    def _links(self) -> dict[str, Any]:
        now = time.monotonic()
        return {"link": [link.told(self.place.node, now) for link in self.links.values()]}

    def _forwarding(self) -> Any:
        if self._told == self.table.changes:
            return UNCHANGED
        self._told = self.table.changes
        high = self._installed.high
        return {
            "epoch": high.epoch,
            "serial": high.serial,
            "in-doubt": high.doubt,
            "hard-limit": int(HARD_LIMIT),
            "entry": [
                {"previous": entry.previous, "label": entry.label, **self._row(entry)} for entry in self.table.entries
            ],
            "path": [
                {
                    "destination": path.destination,
                    "service-class": path.service_class or "any",
                    "rank": path.rank,
                    "origin": "statement",
                    **self._row(path),
                }
                for path in self.table.paths
            ],
        }

    def _row(self, row: Entry | Path) -> dict[str, Any]:
        held = self._installed.held[row.serial or 0]
        return {
            "serial": row.serial if held.drained is None else None,
            "remaining": int(held.remaining(time.monotonic())) // 3_600 * 3_600,
        }
