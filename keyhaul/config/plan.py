"""From a network description to each service's configuration: a pure function of description and randomness.

Paths are relative to the service's own directory, which `keyhaul.command.init` fills with the files named here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from keyhaul.config.controllers import AGENT_TRUST, PLAN_FILE, STATEMENT_KEY, agent, steering
from keyhaul.config.description import Description, LinkDescription, NodeSection
from keyhaul.config.former import Former
from keyhaul.config.forwarding_plan import Forwarding
from keyhaul.config.ports import FIRST_MODULE_PORT, METRICS_PORTS, PORTS
from keyhaul.config.services import (
    AaaConfig,
    AgentsSection,
    AkmsConfig,
    CkmsConfig,
    ControllerConfig,
    IdentitySection,
    LinkSection,
    ListenSection,
    ModuleConfig,
    ModuleSection,
    OperationsSection,
    PeerSection,
    QkdmConfig,
    ServiceConfig,
    ServiceSection,
    StoreSection,
    UkmsConfig,
    UserListenSection,
)
from keyhaul.config.subscribers import Contract, Customer, Sae, Site, Subscribers
from keyhaul.identity.names import NodeId, Role, ServiceName
from keyhaul.randomness import Source

SOCKET = "socket"
"""The local socket, in the service's own directory."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service of the network."""

    name: ServiceName
    config: ServiceConfig
    address: str
    """Where it serves: other services, SAEs (UKMS), or the KMS of its node (first module)."""

    @property
    def directory(self) -> str:
        """Its directory, relative to the network's."""
        return f"nodes/{self.name.node}/{self.name.role}"


def services(description: Description, source: Source, former: Former | None = None) -> list[Service]:
    """Return every service with its configuration, node by node in the description's order.

    Args:
        description: the network.
        source: of labels.
        former: what it has already, where it was laid out before.
    """
    former = former or Former()
    forwarding = Forwarding(description, source, former)
    found = []
    for node in description.node:
        for role in (Role.UKMS, Role.AKMS, Role.CKMS, Role.AAA, Role.CONTROLLER):
            if role in node.roles:
                found.append(_certified(description, node, role, forwarding, former))
        if any(node.name in link.hop for link in description.link):
            found.append(_modules(description, node, former))
    return found


def subscribers(description: Description) -> Subscribers:
    """Return what AAA has to know."""
    return Subscribers(
        customer=[Customer(id=customer.name) for customer in description.customer],
        contract=[
            Contract(
                id=f"{customer.name}/{contract.name}",
                customer=customer.name,
                service_class=contract.service_class,
                sizes=contract.sizes,
                default_size=contract.default_size,
                minimum_size=contract.minimum_size,
                maximum_size=contract.maximum_size,
                maximum_keys_per_request=contract.maximum_keys_per_request,
                quota=contract.quota,
                rate=contract.rate,
                burst=contract.burst,
                weight=contract.weight,
                loopback=contract.loopback,
            )
            for customer in description.customer
            for contract in customer.contract
        ],
        site=[
            Site(ukms=f"ukms-{node.name}", akms=f"akms-{description.access_node(node.name)}", kme=kme(node.name))
            for node in description.with_role(Role.UKMS)
        ],
        sae=[
            Sae(
                id=sae.id,
                ukms=f"ukms-{sae.node}",
                contract=f"{sae.customer}/{description.contract_of(sae).name}",
                peers=description.peers_of(sae) + ([sae.id] if sae.loopback else []),
            )
            for sae in description.sae
        ],
    )


def kme(site: str) -> str:
    """The KME ID of the UKMS at a site."""
    return f"kme-{site}"


def module_kme(link: LinkDescription, node: str) -> str:
    """The KME ID of the module at one end of a link."""
    (other,) = link.hop - {node}
    return f"qkdm-{node}-to-{other}"


def end(description: Description, link: LinkDescription, node: str) -> ServiceName:
    """The KMS at one end of a link."""
    roles = description.roles_of(link)
    if roles is None:
        raise ValueError(f"{link.id} connects no two KMSs")
    return ServiceName(description.network.domain, roles[0] if node == link.a else roles[1], NodeId(node))


def _certified(
    description: Description, node: NodeSection, role: Role, forwarding: Forwarding, former: Former
) -> Service:
    host = description.host(node.name)
    address = f"{host}:{PORTS[role]}"
    name = ServiceName(description.network.domain, role, NodeId(node.name))
    service = _service(name)
    identity = IdentitySection(
        certificate="certificate.pem",
        key="key.pem",
        trust="trust.pem",
        crl="crl.pem",
        classic_certificate="classic-certificate.pem",
        classic_key="classic-key.pem",
        link_key="link-key.pem" if role in (Role.UKMS, Role.AKMS, Role.CKMS) else None,
    )
    listen = ListenSection(address=address)
    operations = _operations(host, role)
    store = StoreSection(path="store.db", key_file="store.key")
    links = [_link(description, link, name, former) for link in _links_of(description, name)]
    config: ServiceConfig
    match role:
        case Role.CKMS:
            config = CkmsConfig(
                service=service,
                identity=identity,
                listen=listen,
                operations=operations,
                store=store,
                link=links,
                akms=_peer(description, Role.AKMS, node.name) if Role.AKMS in node.roles else None,
                controller=steering(description),
                gnmi=agent(description, node.name),
                path=forwarding.paths.get(node.name, []),
                entry=forwarding.entries.get(node.name, []),
            )
        case Role.AKMS:
            (data_centre,) = description.with_role(Role.AAA)
            others = [other.name for other in description.with_role(Role.AKMS) if other is not node]
            config = AkmsConfig(
                service=service,
                identity=identity,
                listen=listen,
                operations=operations,
                store=store,
                link=links,
                ckms=_peer(description, Role.CKMS, node.name),
                aaa=_peer(description, Role.AAA, data_centre.name),
                aaa_key="aaa-key.pem",
                peer=[_peer(description, Role.AKMS, other) for other in others],
            )
        case Role.UKMS:
            config = UkmsConfig(
                service=service,
                identity=identity,
                operations=operations,
                store=store,
                link=links[0],
                akms=_peer(description, Role.AKMS, description.access_node(node.name)),
                sae=UserListenSection(
                    address=address,
                    kme=kme(node.name),
                    certificate="sae-certificate.pem",
                    key="sae-key.pem",
                    trust="saes.pem",
                    crl="saes-crl.pem",
                ),
            )
        case Role.CONTROLLER:
            config = ControllerConfig(
                service=service,
                identity=identity,
                listen=listen,
                operations=operations,
                gnmi=AgentsSection(trust=AGENT_TRUST),
                database=description.controller.database or "sqlite:///controller.db",
                statement_key=STATEMENT_KEY,
                plan=PLAN_FILE,
            )
        case _:
            config = AaaConfig(
                service=service,
                identity=identity,
                listen=listen,
                operations=operations,
                database="sqlite:///aaa.db",
                grant_key="grant-key.pem",
            )
    return Service(name, config, address)


def _modules(description: Description, node: NodeSection, former: Former) -> Service:
    name = ServiceName(description.network.domain, Role.QKDM, NodeId(node.name))
    host = description.host(node.name)
    ports = _module_ports(description, node.name, former)
    modules = []
    for link in description.link:
        if node.name not in link.hop:
            continue
        (other,) = link.hop - {node.name}
        modules.append(
            ModuleConfig(
                link=link.id,
                address=f"{host}:{ports[link.id]}",
                kme=module_kme(link, node.name),
                peer_kme=module_kme(link, other),
                sae=end(description, link, node.name).id,
                peer_sae=end(description, link, other).id,
                certificate=f"modules/{link.id}/certificate.pem",
                key=f"modules/{link.id}/key.pem",
                trust="services.pem",
                channel=channel(link),
                transmitter=node.name == link.a,
                rate=float(description.rate(link)),
                rate_deviation=float(link.skr_deviation),
                qber=link.qber,
                qber_deviation=link.qber_deviation,
                block=description.modules.block,
                key_size=description.modules.key_size,
                stock=description.modules.stock,
                capacity=description.modules.capacity,
                fixed_rate=description.modules.fixed_rate,
            )
        )
    config = QkdmConfig(service=_service(name), operations=_operations(host, Role.QKDM), module=modules)
    return Service(name, config, modules[0].address)


def channel(link: LinkDescription) -> str:
    """The Unix socket between a link's two simulated modules, relative to a service's directory."""
    return f"../../../run/{link.id}.sock"


def _module_ports(description: Description, node: str, former: Former) -> dict[str, int]:
    """The port of the module of each link of a node: what it had before, and the lowest free ones."""
    links = [link.id for link in description.link if node in link.hop]
    taken = {port for (where, _), port in former.ports.items() if where == node}
    free = (port for port in count(FIRST_MODULE_PORT) if port not in taken)
    return {link: former.ports.get((node, link)) or next(free) for link in links}


def _links_of(description: Description, name: ServiceName) -> list[LinkDescription]:
    return [link for link in description.link if name.node in link.hop and end(description, link, name.node) == name]


def _link(description: Description, link: LinkDescription, own: ServiceName, former: Former) -> LinkSection:
    (other,) = link.hop - {own.node}
    neighbour = end(description, link, other)
    first = end(description, link, link.a)
    access = Role.UKMS in (own.role, neighbour.role)
    suites, floor = description.suites(link)
    host = description.host(own.node)
    return LinkSection(
        id=link.id,
        neighbour=neighbour.id,
        address=None if neighbour.role is Role.UKMS else f"{description.host(other)}:{PORTS[neighbour.role]}",
        initiator=own.role is Role.UKMS if access else own == first,
        peer_link_key=f"links/{link.id}/neighbour.pem",
        bootstrap=f"links/{link.id}/bootstrap",
        suites=suites,
        floor=floor,
        enabled=link.enabled,
        rate=max(1, round(description.rate(link))),
        pool=link.pool,
        module=ModuleSection(
            url=f"https://{host}:{_module_ports(description, own.node, former)[link.id]}",
            trust="modules.pem",
            kme=module_kme(link, own.node),
            sae=own.id,
            peer_sae=neighbour.id,
        ),
    )


def _peer(description: Description, role: Role, node: str) -> PeerSection:
    return PeerSection(service=f"{role}-{node}", address=f"{description.host(node)}:{PORTS[role]}")


def _service(name: ServiceName) -> ServiceSection:
    return ServiceSection(domain=name.domain, role=name.role.value, node=name.node)


def _operations(host: str, role: Role) -> OperationsSection:
    return OperationsSection(metrics=f"{host}:{METRICS_PORTS[role]}", socket=SOCKET)
