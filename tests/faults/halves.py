"""Networks in namespaces of the kernel: two halves with a cable between them, and users and a data centre beside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.faults.namespaces import Namespaces

BASE = "10.212.0."
"""Addresses inside the namespaces only; nothing of the machine's own network is touched."""

PREFIXED = ("address", "url")


def join(west: Namespaces, east: Namespaces, nodes: Mapping[Namespaces, Iterable[int]]) -> None:
    """Lay the cable between both halves, and give each its nodes' addresses, by number."""
    for side in (west, east):
        side.run("ip", "link", "set", "lo", "up")
    west.run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(east.pid))
    for side in (west, east):
        for number in nodes[side]:
            side.run("ip", "address", "add", f"{BASE}{number}/24", "dev", "cable")
        side.run("ip", "link", "set", "cable", "up")


def bring_users(users: Namespaces, reached: Mapping[Namespaces, Iterable[int]]) -> None:
    """Lay a cable from the users to each half, for these of its nodes."""
    users.run("ip", "link", "set", "lo", "up")
    for number, (side, nodes) in enumerate(reached.items(), start=1):
        name = f"half{number}"
        users.run("ip", "link", "add", name, "type", "veth", "peer", "name", "users", "netns", str(side.pid))
        users.run("ip", "address", "add", f"10.213.{number}.1/24", "dev", name)
        side.run("ip", "address", "add", f"10.213.{number}.2/24", "dev", "users")
        users.run("ip", "link", "set", name, "up")
        side.run("ip", "link", "set", "users", "up")
        for node in nodes:
            users.run("ip", "route", "add", f"{BASE}{node}/32", "via", f"10.213.{number}.2")


class DataCentre:
    """One node in a namespace of its own, with a cable to each half.

    Args:
        place: its namespace.
        number: of the node.
        reached: the nodes of each half.
    """

    def __init__(self, place: Namespaces, number: int, reached: Mapping[Namespaces, Iterable[int]]) -> None:
        self._address = f"{BASE}{number}/32"
        place.run("ip", "link", "set", "lo", "up")
        place.run("ip", "address", "add", self._address, "dev", "lo")
        for side, (half, nodes) in enumerate(reached.items(), start=1):
            name = f"half{side}"
            place.run("ip", "link", "add", name, "type", "veth", "peer", "name", "centre", "netns", str(half.pid))
            place.run("ip", "link", "set", name, "up")
            self.connect(half)
            for node in nodes:
                place.run("ip", "route", "add", f"{BASE}{node}/32", "dev", name)

    def connect(self, half: Namespaces) -> None:
        """Plug the cable to a half in."""
        half.run("ip", "link", "set", "centre", "up")
        half.run("ip", "route", "add", self._address, "dev", "centre")

    def cut_off(self, half: Namespaces) -> None:
        """Pull it out."""
        half.run("ip", "link", "set", "centre", "down")


def readdress(directory: Path, local: str) -> None:
    """Every address but those of the operations pages, which stay on loopback."""
    for config in directory.glob("nodes/*/*/config.toml"):
        lines = config.read_text().splitlines(keepends=True)
        moved = [line.replace(local, BASE) if line.startswith(PREFIXED) else line for line in lines]
        config.write_text("".join(moved))
    for plan in directory.glob("nodes/*/controller/plan.json"):
        plan.write_text(plan.read_text().replace(local, BASE))
    listing = directory / "network.json"
    facts = json.loads(listing.read_text())
    for entry in (*facts["services"], *facts["saes"]):
        for name in ("address", "ukms"):
            if name in entry:
                entry[name] = entry[name].replace(local, BASE)
    listing.write_text(json.dumps(facts))
