"""What a network description means for its controllers, and for the CKMSs that they steer."""

from __future__ import annotations

from keyhaul.config.carrier import CarrierLink, CarrierNode, CarrierPlan
from keyhaul.config.description import Description
from keyhaul.config.ports import GNMI_PORT, PORTS
from keyhaul.config.services import (
    LINK_RESERVE,
    ControllerSection,
    ControllerServerSection,
    GnmiSection,
)
from keyhaul.identity.names import Role

PLAN_FILE = "plan.json"
"""The plan, in a controller's directory."""

STATEMENT_KEY = "statement-key.pem"
"""A controller's private key for statements, in its directory."""

AGENT_TRUST = "services.pem"
"""The authority of services' P-256 certificates, in the directory of who meets them over gNMI."""

AGENT_CRL = "services-crl.pem"
"""Its revocation list."""


def pinned_key(controller: str) -> str:
    """Where a CKMS keeps the public half of a controller's statement key; `controller` is the node."""
    return f"controllers/{controller}.pem"


def agent_address(description: Description, node: str) -> str:
    """Where the agent of a node's CKMS listens."""
    return description.node_named(node).agent or f"{description.host(node)}:{GNMI_PORT}"


def steering(description: Description) -> ControllerSection | None:
    """Who may steer the CKMSs; None in a network without a controller."""
    controllers = description.with_role(Role.CONTROLLER)
    if not controllers:
        return None
    return ControllerSection(
        hard_limit=description.controller.hard_limit,
        server=[
            ControllerServerSection(
                service=f"{Role.CONTROLLER}-{node.name}",
                address=f"{description.host(node.name)}:{PORTS[Role.CONTROLLER]}",
                statement_key=pinned_key(node.name),
            )
            for node in controllers
        ],
    )


def agent(description: Description, node: str) -> GnmiSection | None:
    """The agent of a node's CKMS; None in a network without a controller."""
    if not description.with_role(Role.CONTROLLER):
        return None
    return GnmiSection(address=agent_address(description, node), trust=AGENT_TRUST, crl=AGENT_CRL)


def carrier_plan(description: Description) -> CarrierPlan:
    """Return the plan of a description's carrier: its CKMSs and the links between them, and no user or site."""
    return CarrierPlan(
        network=description.network.name,
        nodes=tuple(
            CarrierNode(
                id=f"{Role.CKMS}-{node.name}",
                target=agent_address(description, node.name),
                access=Role.AKMS in node.roles,
                jurisdiction=node.jurisdiction,
                place=node.place,
            )
            for node in description.with_role(Role.CKMS)
        ),
        links=tuple(
            CarrierLink(
                id=link.id,
                a=f"{Role.CKMS}-{link.a}",
                b=f"{Role.CKMS}-{link.b}",
                quantum=True,  # every link of a description has a pair of QKD modules
                rate=round(description.rate(link)),
                capacity=8 * (link.pool + LINK_RESERVE),
                suites=tuple(description.suites(link)[0]),
                risk_groups=tuple(link.risk_groups),
                km=float(link.km),
            )
            for link in description.link
            if description.roles_of(link) == (Role.CKMS, Role.CKMS)
        ),
    )
