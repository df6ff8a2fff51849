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
    """How many links are up, and how many there are, as the health page of any role tells it."""
    up, down, every = facts.get("links_up"), facts.get("links_down"), facts.get("links")
    if isinstance(facts.get("link_up"), bool):
        return int(facts["link_up"]), 1
    if isinstance(up, list) and isinstance(down, list):
        return len(up), len(up) + len(down)
    if isinstance(up, int) and isinstance(every, int):
        return up, every
    return 0, 0


def missing(facts: dict[str, Any] | None) -> str:
    """What a service still lacks; empty when it serves fully."""
    if facts is None:
        return "does not answer"
    if not facts.get("ready"):
        return "not ready"
    up, every = links(facts)
    if up < every:
        return f"{every - up} of {every} links down"
    connected = facts.get("connected")
    if isinstance(connected, dict) and not all(connected.values()):
        return "not connected to " + ", ".join(sorted(name for name, stands in connected.items() if not stands))
    if facts.get("akms_connected") is False:
        return "not connected to its AKMS"
    return ""
