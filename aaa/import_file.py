"""The import file: customers, contracts, sites, SAEs and who may talk to whom; read and checked whole.

The file is TOML with arrays of tables; sizes are bits::

    [[customer]]
    id = "first"
    name = "First Bank"                  # optional

    [[contract]]
    id = "first/silver"
    customer = "first"
    class = "silver"                     # gold, silver, bronze or split
    sizes = [128, 256]                   # allowed sizes; empty: any multiple of 8 from minimum to maximum
    default_size = 256
    minimum_size = 64
    maximum_size = 1024
    maximum_keys_per_request = 128
    quota = 1000000                      # keys a day (UTC); 0: no limit
    rate = 50.0                          # keys a second at each access node; 0: no limit
    burst = 200                          # keys at once; left out: a second of the rate, at least one request
    weight = 1                           # share beside other contracts where they queue for the same, 1 to 100
    loopback = false                     # whether an SAE may ask for keys shared with itself

    [[site]]
    ukms = "ukms-1"
    akms = "akms-2"
    kme = "kme-1"                        # KME ID that SAEs see
    customer = "first"                   # optional: only this customer's SAEs may be here

    [[sae]]
    id = "first-berlin-1"
    ukms = "ukms-1"
    contract = "first/silver"
    peers = ["first-bonn-1"]             # slaves it may ask keys for as master

    [[community]]                        # optional: everybody in it with everybody else
    id = "first/branches"
    customer = "first"
    members = ["first-berlin-1", "first-bonn-1"]
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Literal

from msgspec import Struct, field

from keyhaul.config.checks import duplicates
from keyhaul.config.loader import read
from keyhaul.config.problems import ConfigurationError, Problem
from keyhaul.identity.names import MalformedName, Role, node_id, sae_id

LARGEST_SIZE = 65_536
"""Bits of one key."""

LARGEST_REQUEST = 1_024
"""Keys."""

LARGEST_QUOTA = 2**53

LARGEST_RATE = 1e9
"""Keys a second."""

LARGEST_BURST = 2**31 - 1

LARGEST_WEIGHT = 100


class Customer(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[customer]]"""

    id: str
    name: str = ""


class Contract(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[contract]]"""

    id: str
    customer: str
    service_class: Literal["gold", "silver", "bronze", "split"] = field(name="class")
    sizes: list[int] = field(default_factory=list)
    default_size: int = 256
    minimum_size: int = 64
    maximum_size: int = 1_024
    maximum_keys_per_request: int = 128
    quota: int = 0
    rate: float = 0.0
    burst: int = 0
    weight: int = 1
    loopback: bool = False

    def allowed_burst(self) -> int:
        """Keys at once: as said, else a second of the rate and at least one request; 0 where there is no rate."""
        if not self.rate:
            return 0
        return self.burst or max(ceil(self.rate), self.maximum_keys_per_request)


class Site(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[site]]"""

    ukms: str
    akms: str
    kme: str
    customer: str | None = None


class Sae(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[sae]]"""

    id: str
    ukms: str
    contract: str
    peers: list[str] = field(default_factory=list)


class Community(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[community]]"""

    id: str
    customer: str
    members: list[str] = field(default_factory=list)


class ImportFile(Struct, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    customer: list[Customer]
    contract: list[Contract] = field(default_factory=list)
    site: list[Site] = field(default_factory=list)
    sae: list[Sae] = field(default_factory=list)
    community: list[Community] = field(default_factory=list)


def parse(content: bytes, name: Path) -> ImportFile:
    """Read and check an import file; `name` names it in errors.

    Raises:
        ConfigurationError: with everything that is wrong in it.
    """
    file = read(content, ImportFile, name)
    if problems := list(_problems(file)):
        raise ConfigurationError(name, problems)
    return file


def _problems(file: ImportFile) -> Iterator[Problem]:
    if not file.customer:
        yield Problem("", "customer", "empty: an import replaces everything, and this one would leave nothing")
    yield from duplicates("customer", "id", (one.id for one in file.customer))
    yield from duplicates("contract", "id", (one.id for one in file.contract))
    yield from duplicates("site", "ukms", (one.ukms for one in file.site))
    yield from duplicates("site", "kme", (one.kme for one in file.site))
    yield from duplicates("sae", "id", (one.id for one in file.sae))
    yield from duplicates("community", "id", (one.id for one in file.community))
    for place, customer in enumerate(file.customer, 1):
        yield from _length(f"customer {place}", "id", customer.id, 64)
        yield from _length(f"customer {place}", "name", customer.name, 256, least=0)
    checks = _References(file)
    for place, contract in enumerate(file.contract, 1):
        yield from _contract_problems(f"contract {place}", contract)
        yield from checks.customer(f"contract {place}", contract.customer)
    for place, site in enumerate(file.site, 1):
        yield from _site_problems(f"site {place}", site)
        if site.customer is not None:
            yield from checks.customer(f"site {place}", site.customer)
    for place, sae in enumerate(file.sae, 1):
        yield from checks.sae(f"sae {place}", sae)
    for place, community in enumerate(file.community, 1):
        yield from _length(f"community {place}", "id", community.id, 128)
        yield from checks.customer(f"community {place}", community.customer)
        yield from checks.members(f"community {place}", community)


def _contract_problems(table: str, contract: Contract) -> Iterator[Problem]:
    yield from _length(table, "id", contract.id, 128)
    for name, size in (
        ("default_size", contract.default_size),
        ("minimum_size", contract.minimum_size),
        ("maximum_size", contract.maximum_size),
        *(("sizes", size) for size in contract.sizes),
    ):
        if size % 8 or not 8 <= size <= LARGEST_SIZE:
            yield Problem(table, name, f"{size} is not allowed (bits, a multiple of 8 from 8 to {LARGEST_SIZE})")
        elif not contract.minimum_size <= size <= contract.maximum_size:
            yield Problem(table, name, f"{size} is outside of {contract.minimum_size} to {contract.maximum_size}")
    if contract.sizes and contract.default_size not in contract.sizes:
        yield Problem(table, "default_size", f"{contract.default_size} is not one of sizes")
    if not 1 <= contract.maximum_keys_per_request <= LARGEST_REQUEST:
        yield Problem(
            table, "maximum_keys_per_request", f"{contract.maximum_keys_per_request} is not allowed (1 to 1024)"
        )
    if not 0 <= contract.quota <= LARGEST_QUOTA:
        yield Problem(table, "quota", f"{contract.quota} is not allowed (keys a day; 0: no limit)")
    yield from _rate_problems(table, contract)


def _rate_problems(table: str, contract: Contract) -> Iterator[Problem]:
    if contract.rate and not 0.001 <= contract.rate <= LARGEST_RATE:
        yield Problem(table, "rate", f"{contract.rate} is not allowed (keys a second, 0.001 or more; 0: no limit)")
    if contract.burst and not contract.rate:
        yield Problem(table, "burst", "given, but there is no rate (give a rate, or leave it out)")
    if contract.burst and not contract.maximum_keys_per_request <= contract.burst <= LARGEST_BURST:
        yield Problem(
            table, "burst", f"{contract.burst} is not allowed (keys, maximum_keys_per_request or more; 0: a second's)"
        )
    if not 1 <= contract.weight <= LARGEST_WEIGHT:
        yield Problem(table, "weight", f"{contract.weight} is not allowed (1 to {LARGEST_WEIGHT})")


def _site_problems(table: str, site: Site) -> Iterator[Problem]:
    yield from _service_problems(table, "ukms", site.ukms, Role.UKMS)
    yield from _service_problems(table, "akms", site.akms, Role.AKMS)
    yield from _name_problems(table, "kme", site.kme)


class _References:
    """What tables of the file say of one another."""

    def __init__(self, file: ImportFile) -> None:
        self._customers = {one.id for one in file.customer}
        self._contracts = {one.id: one for one in file.contract}
        self._sites = {one.ukms: one for one in file.site}
        self._owners = {
            one.id: self._contracts[one.contract].customer for one in file.sae if one.contract in self._contracts
        }
        self._saes = {one.id for one in file.sae}

    def customer(self, table: str, customer: str) -> Iterator[Problem]:
        if customer not in self._customers:
            yield Problem(table, "customer", f'"{customer}" is no [[customer]] here')

    def sae(self, table: str, sae: Sae) -> Iterator[Problem]:
        yield from _name_problems(table, "id", sae.id)
        contract, site = self._contracts.get(sae.contract), self._sites.get(sae.ukms)
        if contract is None:
            yield Problem(table, "contract", f'"{sae.contract}" is no [[contract]] here')
        if site is None:
            yield Problem(table, "ukms", f'"{sae.ukms}" is no [[site]] here')
        elif contract is not None and site.customer not in (None, contract.customer):
            yield Problem(table, "ukms", f'"{sae.ukms}" is the site of another customer')
        if contract is not None and sae.id in sae.peers and not contract.loopback:
            yield Problem(table, "peers", f'"{sae.id}" is itself, and its contract has no loopback')
        yield from self._together(table, "peers", sae.peers, contract.customer if contract else None)

    def members(self, table: str, community: Community) -> Iterator[Problem]:
        yield from self._together(table, "members", community.members, community.customer)

    def _together(self, table: str, name: str, saes: list[str], customer: str | None) -> Iterator[Problem]:
        yield from duplicates(table, name, saes)
        for sae in saes:
            if sae not in self._saes:
                yield Problem(table, name, f'"{sae}" is no [[sae]] here')
            elif customer is not None and self._owners.get(sae, customer) != customer:
                yield Problem(table, name, f'"{sae}" belongs to another customer')


def _length(table: str, name: str, value: str, most: int, *, least: int = 1) -> Iterator[Problem]:
    if not least <= len(value) <= most:
        yield Problem(table, name, f"has {len(value)} characters ({least} to {most} are allowed)")


def _name_problems(table: str, name: str, value: str) -> Iterator[Problem]:
    try:
        sae_id(value)
    except MalformedName:
        yield Problem(table, name, f'"{value}" is not allowed (1 to 64 characters out of A-Z a-z 0-9 . _ ~ : @ + -)')


def _service_problems(table: str, name: str, service: str, role: Role) -> Iterator[Problem]:
    prefix, _, node = service.partition("-")
    try:
        node_id(node)
    except MalformedName:
        prefix = ""
    if prefix != role:
        yield Problem(table, name, f'"{service}" is not allowed ({role}-NODE)')
