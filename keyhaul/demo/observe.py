"""What the demonstration shows of the network: asked of each service over its local socket and metrics page."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyhaul.runtime.local import LocalSocketError, ask

_KMS_ROLES = frozenset({"ukms", "akms", "ckms"})


@dataclass(frozen=True, slots=True)
class LinkView:
    """A link as its first-named end sees it; pads in bytes."""

    id: str
    suite: str
    state: str
    outgoing: int
    incoming: int


@dataclass(frozen=True, slots=True)
class NetworkFiles:
    """Where a network made by `keyhaul network init` keeps what its tools need."""

    directory: Path
    services: tuple[dict[str, Any], ...]
    saes: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, directory: Path) -> NetworkFiles:
        """Read `network.json`.

        Raises:
            OSError: it is not there.
        """
        facts = json.loads((directory / "network.json").read_text())
        return cls(directory, tuple(facts["services"]), tuple(facts["saes"]))

    def far_pair(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The first two SAEs at different sites that may share keys.

        Raises:
            LookupError: the description has none.
        """
        by_id = {entry["id"]: entry for entry in self.saes}
        for master in self.saes:
            for peer in master["peers"]:
                if by_id[peer]["node"] != master["node"]:
                    return master, by_id[peer]
        raise LookupError("the network description lets no two SAEs at different sites share keys")

    def socket(self, service: str) -> Path:
        """The local socket of a service."""
        return Path(next(entry["socket"] for entry in self.services if entry["id"] == service))


async def links(network: NetworkFiles) -> list[LinkView]:
    """Every link once, in the order of the services; services that do not answer are left out."""
    asked = [entry for entry in network.services if entry["role"] in _KMS_ROLES]
    answers = await asyncio.gather(*(_links_of(entry) for entry in asked))
    found: dict[str, LinkView] = {}
    for answer in answers:
        for link in answer:
            found.setdefault(
                link["link"],
                LinkView(
                    id=link["link"],
                    suite=link["suite"],
                    state=link["state"] if link["connected"] else "away",
                    outgoing=link["outgoing"]["payload_available"],
                    incoming=link["incoming"]["payload_available"],
                ),
            )
    return sorted(found.values(), key=lambda link: [_number(end) for end in link.id.split("-")])


async def relayed(network: NetworkFiles, service: str) -> int:
    """How many bytes of CN keys a CKMS has passed on since it started."""
    try:
        answer = await ask(network.socket(service), "relay", {}, deadline=2.0)
    except LocalSocketError:
        return 0
    return int(answer["relayed_bytes"])


async def _links_of(entry: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        answer = await ask(Path(entry["socket"]), "links", {}, deadline=2.0)
    except LocalSocketError:
        return []
    found: list[dict[str, Any]] = answer["links"]
    return found


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
