"""The network description: the one file that an operator writes, from which `keyhaul network init` makes the rest.

Sizes of keys are bits, rates bits per second, lengths km, error ratios 0 to 1. `description_checks` reads and checks
it.
"""

from __future__ import annotations

import ipaddress
from typing import Literal

from msgspec import Struct, field

from keyhaul.config.routes import Hop, Routes
from keyhaul.config.services import CARRIER_RATE, HARD_LIMIT, LINK_POOL, ContractClass, ServiceClass, SuiteName
from keyhaul.identity.names import Role

NodeRole = Literal["ukms", "akms", "ckms", "aaa", "controller"]


LEAST_BURST = 4_096
"""Bytes that a burst has at least where none is given."""


class CarrierClass(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[carrier]], or [[link.carrier]] for the paths over one link: what each path may carry of a class."""

    service_class: ServiceClass | None = field(name="class", default=None)
    """Batches of this class get paths of their own; absent: those of all other classes."""
    rate: float = CARRIER_RATE
    """Bytes of CN key a second, each path."""
    burst: int = 0
    """Bytes at once; 0: a second of the rate, at least 4096."""

    def allowed_burst(self) -> int:
        """Bytes at once."""
        return self.burst or max(LEAST_BURST, round(self.rate))


class NetworkSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[network]: what holds for all of it."""

    name: str
    domain: str
    """The domain in every service's name."""
    loopback: str = "127.16.0.0"
    """The node of number n has this address plus n, when all run on one machine."""
    suites: list[SuiteName] = field(default_factory=lambda: ["aes-256-gcm", "otp"])
    """Protections that links accept, best first, where a link says nothing else."""
    floor: SuiteName = "aes-256-gcm"
    assumed_rate: float = 2000.0
    """Rate of links marked `assumed`, bits per second."""


class ModulesSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[modules]: the simulated QKD modules."""

    block: int = 4_096
    """Bits that one burst distils."""
    key_size: int = 256
    stock: float = 60.0
    """Seconds of the rate that are in store at start."""
    capacity: int = 65_536
    """Keys that a module stores."""
    fixed_rate: bool = False


class ControlDescription(Struct, forbid_unknown_fields=True, kw_only=True):
    """[controller]: what the nodes with the role controller share."""

    database: str | None = None
    """SQLAlchemy URL of their PostgreSQL database; absent: an SQLite file, of a single controller."""
    hard_limit: float = HARD_LIMIT
    """Seconds for which CKMSs use what a controller said while none can be reached."""


class NodeSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[node]]: a place with services."""

    name: str
    place: str = ""
    """For people, e.g. a city."""
    number: int
    """Gives the node its loopback address."""
    roles: list[NodeRole]
    jurisdiction: str = ""
    """Whose law holds there, e.g. ``DE``, for paths that must not leave some."""
    agent: str | None = None
    """Where the agent of its CKMS listens, HOST:PORT, in a network of several machines; absent: port 9339 of the
    node's address."""


class LinkDescription(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[link]]: two adjacent nodes with a pair of QKD modules."""

    a: str
    b: str
    km: float
    skr: float | None = None
    """Secret key rate, bits per second."""
    skr_deviation: float = 0.0
    qber: float = 0.02
    """Quantum bit error ratio, 0 to 1."""
    qber_deviation: float = 0.0
    assumed: bool = False
    """No figures are known: the network's assumed rate is taken."""
    suites: list[SuiteName] | None = None
    floor: SuiteName | None = None
    pool: int = LINK_POOL
    """Payload pad that each end keeps per direction, bytes."""
    enabled: bool = True
    """Whether keys may cross it: a link that is switched off stays in the plan, and no path uses it."""
    risk_groups: list[str] = []
    """What the link shares a fate with others by: ducts, bridges, buildings."""
    carrier: list[CarrierClass] = []
    """What the paths over this link may carry, where it is less than elsewhere."""

    @property
    def id(self) -> str:
        """E.g. ``8-9``."""
        return f"{self.a}-{self.b}"

    @property
    def hop(self) -> Hop:
        """The two nodes, in no order."""
        return frozenset((self.a, self.b))


class ContractSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[customer.contract]]: the terms on which a customer's SAEs get keys."""

    name: str
    service_class: ContractClass = field(default="silver", name="class")
    sizes: list[int] = []
    """Allowed sizes in bits; empty: any multiple of 8 between minimum and maximum."""
    default_size: int = 256
    minimum_size: int = 64
    maximum_size: int = 1024
    maximum_keys_per_request: int = 128
    quota: int = 0
    """Keys a day; 0: no limit."""
    rate: float = 0.0
    """Keys a second at each access node; 0: no limit."""
    burst: int = 0
    """Keys at once; 0: a second of the rate, at least one request."""
    weight: int = 1
    """Share beside other contracts where they queue for the same, 1 to 100."""
    loopback: bool = False
    """Whether an SAE may ask for keys that it shares with itself."""


class CustomerSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[customer]]: who has contracts."""

    name: str
    contract: list[ContractSection]


class SaeSection(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[sae]]: an encryptor or program that uses keys."""

    id: str
    node: str
    """The node of its UKMS."""
    customer: str
    contract: str | None = None
    """One of the customer's; may be left out where there is one only."""
    peers: list[str] | None = None
    """SAEs of the same customer that it may ask keys for; left out: all the others."""
    loopback: bool = False
    """Whether it may ask for keys shared with itself; its contract must say so too."""


class Description(Struct, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    network: NetworkSection
    modules: ModulesSection = field(default_factory=ModulesSection)
    controller: ControlDescription = field(default_factory=ControlDescription)
    node: list[NodeSection]
    link: list[LinkDescription]
    carrier_classes: list[CarrierClass] = field(name="carrier", default_factory=list)
    """What each path may carry; classes that are named nowhere share paths of CARRIER_RATE."""
    customer: list[CustomerSection]
    sae: list[SaeSection] = []

    def with_role(self, role: Role) -> list[NodeSection]:
        """The nodes that have a role, in the file's order."""
        return [node for node in self.node if role in node.roles]

    def node_named(self, name: str) -> NodeSection:
        """A node by name (KeyError where there is none)."""
        return {node.name: node for node in self.node}[name]

    def host(self, name: str) -> str:
        """A node's address on one machine."""
        return str(ipaddress.IPv4Address(self.network.loopback) + self.node_named(name).number)

    def rate(self, link: LinkDescription) -> float:
        """A link's secret key rate, bits per second."""
        return self.network.assumed_rate if link.skr is None else link.skr

    def suites(self, link: LinkDescription) -> tuple[list[SuiteName], SuiteName]:
        """A link's protections, best first, and its floor."""
        return link.suites or self.network.suites, link.floor or self.network.floor

    def roles_of(self, link: LinkDescription) -> tuple[Role, Role] | None:
        """What KMSs a link connects, at its a and b ends; None where the nodes' roles fit no link."""
        first, second = (self.node_named(name).roles for name in (link.a, link.b))
        if Role.CKMS in first and Role.CKMS in second:
            return Role.CKMS, Role.CKMS
        if Role.UKMS in first and Role.AKMS in second:
            return Role.UKMS, Role.AKMS
        if Role.AKMS in first and Role.UKMS in second:
            return Role.AKMS, Role.UKMS
        return None

    def classes(self) -> list[ServiceClass | None]:
        """The classes that have paths of their own, and None for those that share paths."""
        named = [one.service_class for one in self.carrier_classes]
        named += [one.service_class for link in self.link for one in link.carrier]
        return [None, *sorted({one for one in named if one is not None})]

    def policing(self, hop: Hop, service_class: ServiceClass | None) -> CarrierClass:
        """What a path of a class may carry over a link: the link's word, else the network's, else CARRIER_RATE."""
        (link,) = (link for link in self.link if link.hop == hop)
        for one in (*link.carrier, *self.carrier_classes):
            if one.service_class == service_class:
                return one
        return CarrierClass(service_class=service_class)

    def carrier(self) -> Routes:
        """The links between CKMSs that are switched on."""
        return Routes(
            {link.hop: link.km for link in self.link if link.enabled and self.roles_of(link) == (Role.CKMS, Role.CKMS)},
        )

    def access_node(self, site: str) -> str:
        """The access node that a site's UKMS is linked to."""
        for link in self.link:
            if site in link.hop:
                (other,) = link.hop - {site}
                return other
        raise KeyError(site)

    def contract_of(self, sae: SaeSection) -> ContractSection:
        """An SAE's contract (KeyError where it has none)."""
        customer = {customer.name: customer for customer in self.customer}[sae.customer]
        if sae.contract is None and len(customer.contract) == 1:
            return customer.contract[0]
        return {contract.name: contract for contract in customer.contract}[sae.contract or ""]

    def peers_of(self, sae: SaeSection) -> list[str]:
        """The other SAEs that an SAE may ask keys for, itself not among them."""
        if sae.peers is not None:
            return [peer for peer in sae.peers if peer != sae.id]
        return [other.id for other in self.sae if other.customer == sae.customer and other.id != sae.id]
