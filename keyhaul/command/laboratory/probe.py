"""Asks a service's health page, and says what is still missing until it serves fully."""

from __future__ import annotations

import http.client
import json
from typing import Any

from keyhaul.config.addresses import parse_address


def health(address: str, timeout: float = 1.0) -> dict[str, Any] | None:
    """What the health page of a service says, None where nobody answers. Blocks."""
    host, port = parse_address(address)
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", "/health")
        facts = json.loads(connection.getresponse().read(1_048_576))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return facts if isinstance(facts, dict) else None


def links(facts: dict[str, Any]) -> tuple[int, int]:
    """How many links are up, and how many there are, as the health page of a KMS tells it.

    Of a controller: how many it finds as they are planned.
    """
    found = facts.get("links")
    if not isinstance(found, dict):
        return 0, 0
    if "nodes" in facts:
        return found.get("found", 0), sum(found.values())
    return sum(found.values()), len(found)


def missing(facts: dict[str, Any] | None) -> str:
    """What a service still lacks; empty when it serves fully."""
    if facts is None:
        return "does not answer"
    if not facts.get("ready"):
        return "not ready"
    nodes = facts.get("nodes")
    if isinstance(nodes, dict):
        silent = nodes.get("planned", 0) - nodes.get("telling", 0)
        return f"{silent} of {nodes['planned']} CKMSs do not tell" if silent else ""
    up, every = links(facts)
    if up < every:
        return f"{every - up} of {every} links down"
    connected = facts.get("connected")
    if isinstance(connected, dict) and not all(connected.values()):
        return "not connected to " + ", ".join(sorted(name for name, stands in connected.items() if not stands))
    if facts.get("open") is False:
        return "waits for its AKMS"
    return ""
