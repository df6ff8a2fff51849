"""The networks that simulated CKMSs make up: real ones of topohub and generated ones, as plans of a controller.

germany50 is of SNDlib; the European backbone (852 nodes, 1,287 links) is topohub's; generated networks have their long
links split by trusted nodes (`bench.generated`). Link rates are those that DemoQuanDT measured (its Table 3), drawn
anew for each network, unless a benchmark wants one rate for all.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import topohub

from bench.generated import POOL_SECONDS, TABLE_3, network
from keyhaul.config.carrier import CarrierLink, CarrierNode, CarrierPlan
from keyhaul.config.services import SuiteName

SUITES: tuple[SuiteName, ...] = ("aes-256-gcm", "otp")


@dataclass(frozen=True, slots=True)
class Net:
    """CKMSs and the links between them."""

    name: str
    nodes: tuple[tuple[str, bool], ...]
    """Service id, and whether it is at an access node."""
    links: tuple[CarrierLink, ...]

    def plan(self, addresses: dict[str, str]) -> CarrierPlan:
        """What its controller reads."""
        nodes = tuple(CarrierNode(id=node, target=addresses[node], access=access) for node, access in self.nodes)
        return CarrierPlan(network=self.name, nodes=nodes, links=self.links)


def germany50(*, rate: int | None = None) -> Net:
    """50 nodes and 88 links of SNDlib; every node is an access node."""
    return _of_topohub("sndlib", "germany50", rate)


def europe(*, rate: int | None = None) -> Net:
    """The European backbone."""
    return _of_topohub("backbone", "europe", rate)


def generated(size: int) -> Net:
    """A network of exactly so many nodes, a third or less of them cities."""
    view = network(size)
    links = tuple(_link(link.id, link.a, link.b, link.km, link.stream or 0) for link in view.links)
    return Net(f"generated-{size}", tuple((node.id, node.access) for node in view.nodes), links)


def part(net: Net, size: int) -> Net:
    """The first nodes of a network that are found from its first one, and the links between them."""
    near: dict[str, list[str]] = {}
    for link in net.links:
        near.setdefault(link.a, []).append(link.b)
        near.setdefault(link.b, []).append(link.a)
    found = dict.fromkeys([net.nodes[0][0]])
    for node in (queue := [*found]):
        for other in near[node]:
            if other not in found and len(found) < size:
                found[other] = None
                queue.append(other)
    nodes = tuple(node for node in net.nodes if node[0] in found)
    return Net(f"{net.name}-{size}", nodes, tuple(link for link in net.links if link.a in found and link.b in found))


def _of_topohub(collection: str, name: str, rate: int | None) -> Net:
    data: dict[str, Any] = json.loads(
        (Path(topohub.__file__).parent / "data" / collection / f"{name}.json").read_text()
    )
    chance = random.Random(name)
    links = tuple(
        _link(
            f"link-{number}",
            f"ckms-{edge['source']}",
            f"ckms-{edge['target']}",
            float(edge["dist"]),
            rate or chance.choice(TABLE_3),
        )
        for number, edge in enumerate(data["edges"])
    )
    return Net(name, tuple((f"ckms-{node['id']}", True) for node in data["nodes"]), links)


def _link(identity: str, a: str, b: str, km: float, rate: int) -> CarrierLink:
    return CarrierLink(id=identity, a=a, b=b, rate=rate, capacity=POOL_SECONDS * rate, suites=SUITES, km=round(km, 3))
