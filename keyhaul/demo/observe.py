"""What the demonstration shows of the network: asked of each service over its local socket and metrics page."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

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

    def sae(self, name: str) -> dict[str, Any]:
        """What `network.json` says of an SAE.

        Raises:
            LookupError: there is none of that name; the text tells which there are.
        """
        for entry in self.saes:
            if entry["id"] == name:
                return entry
        known = ", ".join(entry["id"] for entry in self.saes)
        raise LookupError(f"the network has no SAE {name!r}; there are {known}")


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
    """How many bytes of CN keys a CKMS has passed on since it started; 0 when it does not answer."""
    entry = next((entry for entry in network.services if entry["id"] == service), None)
    if entry is None:
        return 0
    timeout = aiohttp.ClientTimeout(total=2.0)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{entry['metrics']}/metrics") as answer,
        ):
            text = await answer.text()
    except (aiohttp.ClientError, TimeoutError):
        return 0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "keyhaul_ckms_forwarded_bytes_total":
                return int(sample.value)
    return 0


async def _links_of(entry: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        answer = await ask(Path(entry["socket"]), "links", {}, deadline=2.0)
    except LocalSocketError:
        return []
    found: list[dict[str, Any]] = answer["links"]
    return found


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
