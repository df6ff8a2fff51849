"""What a laid-out network tells its tools and tests: `network.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keyhaul.config.description import Description
from keyhaul.config.plan import SOCKET, Service, end, kme
from keyhaul.config.writer import to_toml
from keyhaul.identity.names import NodeId, Role, ServiceName

LISTING_FILE = "network.json"

NETWORK_FILE = "network.toml"
"""The description that a laid-out network was made from, with the addresses that it has."""

OPERATOR_ROLES = (Role.VIEWER, Role.OPERATOR)
"""As whom a laboratory's tools may speak to its controller."""


def operators(network: Description) -> list[tuple[ServiceName, str]]:
    """Who looks after a laboratory network, each with a directory relative to the network's; nobody without a
    controller, which is whom they speak to."""
    if not network.with_role(Role.CONTROLLER):
        return []
    return [
        (ServiceName(network.network.domain, role, NodeId("laboratory")), f"operators/{role}")
        for role in OPERATOR_ROLES
    ]


def listing(network: Description, planned: list[Service], out: Path) -> dict[str, Any]:
    """Return the content of `network.json`; `out` is where the network will lie in the end."""
    return {
        "name": network.network.name,
        "domain": network.network.domain,
        "services": [
            {
                "role": service.name.role.value,
                "node": service.name.node,
                "id": service.name.id,
                "address": service.address,
                "metrics": service.config.operations.metrics,
                "config": str(out / service.directory / "config.toml"),
                "socket": str(out / service.directory / SOCKET),
            }
            for service in planned
        ],
        "links": [
            {
                "id": link.id,
                "a": link.a,
                "b": link.b,
                "km": link.km,
                "rate": network.rate(link),
                "assumed": link.assumed,
                "ends": [end(network, link, node).id for node in (link.a, link.b)],
            }
            for link in network.link
        ],
        "nodes": [{"name": node.name, "place": node.place, "roles": node.roles} for node in network.node],
        "saes": [
            {
                "id": sae.id,
                "node": sae.node,
                "ukms": next(
                    f"https://{service.address}"
                    for service in planned
                    if service.name.role is Role.UKMS and service.name.node == sae.node
                ),
                "kme": kme(sae.node),
                "certificate": str(out / "saes" / sae.id / "certificate.pem"),
                "key": str(out / "saes" / sae.id / "key.pem"),
                "ca": str(out / "saes" / sae.id / "ca.pem"),
                "peers": network.peers_of(sae),
                "loopback": sae.loopback,
            }
            for sae in network.sae
        ],
        "operators": [
            {"id": name.id, "role": name.role.value, **_files(out / directory)}
            for name, directory in operators(network)
        ],
        "subscribers": str(out / "aaa.toml"),
    }


def listing_content(facts: dict[str, Any]) -> bytes:
    """Return `network.json` as it is written."""
    return json.dumps(facts, indent=2, ensure_ascii=False).encode() + b"\n"


def network_content(network: Description) -> bytes:
    """Return `network.toml` as it is written."""
    return to_toml(network, "What this network was made from. Change it by: keyhaul network apply").encode()


def config_file(service: Service) -> str:
    """Where a service's configuration lies, relative to the network's directory."""
    return f"{service.directory}/config.toml"


def config_content(service: Service) -> bytes:
    """Return a service's configuration as it is written."""
    head = f"{service.name.id}. Start with: keyhaul serve {service.name.role} --config config.toml"
    return to_toml(service.config, head).encode()


def _files(directory: Path) -> dict[str, str]:
    return {field: str(directory / f"{field}.pem") for field in ("certificate", "key", "trust", "crl")}
