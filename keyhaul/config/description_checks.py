"""Reads a network description, and what its types cannot say: names, sizes, and how nodes, links and SAEs fit.

Errors come all at once, as `loader` tells them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path

from keyhaul.config.checks import (
    address_problems,
    at_least,
    check,
    database_problems,
    duplicates,
    key_size_problems,
    more_than,
    suite_problems,
)
from keyhaul.config.description import (
    CarrierClass,
    ContractSection,
    ControlDescription,
    CustomerSection,
    Description,
    LinkDescription,
    ModulesSection,
    NetworkSection,
    NodeSection,
    SaeSection,
)
from keyhaul.config.loader import load
from keyhaul.config.problems import Problem
from keyhaul.config.routes import reachable
from keyhaul.identity.names import MalformedName, Role, node_id, sae_id

_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


def load_description(path: Path) -> Description:
    """Read and check a network description.

    Raises:
        ConfigurationError: it cannot be used; every error is listed.
    """
    return load(path, Description)


def _name(field_name: str, value: str) -> Iterator[Problem]:
    try:
        node_id(value)
    except MalformedName:
        yield Problem("", field_name, f'"{value}" is no name (a-z, 0-9 and inner hyphens, 1 to 32 characters)')


@check.register
def _(table: NetworkSection) -> Iterator[Problem]:
    yield from _name("name", table.name)
    if not _DOMAIN.fullmatch(table.domain):
        yield Problem("", "domain", f'"{table.domain}" is no domain (lower-case letters, digits, dots and hyphens)')
    try:
        loopback = ipaddress.IPv4Address(table.loopback).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        yield Problem("", "loopback", f'"{table.loopback}" is no loopback address (127.x.y.z)')
    yield from suite_problems(table.suites, table.floor)
    yield from at_least(table, 1, "assumed_rate")


@check.register
def _(table: ModulesSection) -> Iterator[Problem]:
    yield from key_size_problems("key_size", table.key_size)
    if table.block < table.key_size:
        yield Problem("", "block", f"{table.block} is less than a key of {table.key_size} bits")
    yield from at_least(table, 0, "stock")
    yield from at_least(table, 1, "capacity")


@check.register
def _(table: ControlDescription) -> Iterator[Problem]:
    if table.database is not None:
        yield from database_problems("database", table.database, "controller.db")
    yield from more_than(table, 0, "hard_limit")


@check.register
def _(table: NodeSection) -> Iterator[Problem]:
    yield from _name("name", table.name)
    if not 1 <= table.number <= 65_534:
        yield Problem("", "number", f"{table.number} is not allowed (1 to 65534)")
    if not table.roles:
        yield Problem("", "roles", 'empty (some of "ukms", "akms", "ckms", "aaa", "controller")')
    yield from duplicates("", "roles", table.roles)
    if Role.UKMS in table.roles and len(table.roles) > 1:
        yield Problem(
            "", "roles", "a UKMS stands at a user's site, where nothing else of the operator's does (ukms alone)"
        )
    if table.agent is not None:
        yield from address_problems("agent", table.agent)
        if Role.CKMS not in table.roles:
            yield Problem("", "agent", "given, but there is no CKMS at its node (add ckms, or leave it out)")
    if Role.AKMS in table.roles and Role.CKMS not in table.roles:
        yield Problem("", "roles", "an AKMS needs a CKMS at its node (add ckms)")


@check.register
def _(table: LinkDescription) -> Iterator[Problem]:
    if table.a == table.b:
        yield Problem("", "b", f'"{table.b}" is the other end as well (another node)')
    yield from more_than(table, 0, "km")
    if table.skr is None and not table.assumed:
        yield Problem("", "skr", "missing (a rate in bits per second, or assumed = true)")
    if table.skr is not None and table.assumed:
        yield Problem("", "skr", "given, and marked as assumed (one or the other)")
    if table.skr is not None:
        yield from at_least(table, 1, "skr")
    yield from at_least(table, 0, "skr_deviation", "qber_deviation")
    yield from at_least(table, 1024, "pool")
    yield from duplicates("", "risk_groups", table.risk_groups)
    if "" in table.risk_groups:
        yield Problem("", "risk_groups", "an empty name (what the links share)")
    yield from duplicates("carrier", "class", (one.service_class or "all others" for one in table.carrier))
    if not 0 <= table.qber <= 1:
        yield Problem("", "qber", f"{table.qber} is not allowed (a ratio of 0 to 1)")


@check.register
def _(table: CarrierClass) -> Iterator[Problem]:
    yield from more_than(table, 0, "rate")
    yield from at_least(table, 0, "burst")


@check.register
def _(table: ContractSection) -> Iterator[Problem]:
    yield from _name("name", table.name)
    for name in ("default_size", "minimum_size", "maximum_size"):
        yield from key_size_problems(name, getattr(table, name))
    for size in table.sizes:
        yield from key_size_problems("sizes", size)
        if not table.minimum_size <= size <= table.maximum_size:
            yield Problem("", "sizes", f"{size} is outside of {table.minimum_size} to {table.maximum_size}")
    if not table.minimum_size <= table.default_size <= table.maximum_size:
        yield Problem(
            "", "default_size", f"{table.default_size} is outside of {table.minimum_size} to {table.maximum_size}"
        )
    if table.sizes and table.default_size not in table.sizes:
        yield Problem("", "default_size", f"{table.default_size} is not in sizes ({table.sizes})")
    if not 1 <= table.maximum_keys_per_request <= 1024:
        yield Problem("", "maximum_keys_per_request", f"{table.maximum_keys_per_request} is not allowed (1 to 1024)")
    yield from at_least(table, 0, "quota", "rate", "burst")
    if table.burst and not table.rate:
        yield Problem("", "burst", "given, but there is no rate (give a rate, or leave it out)")
    if table.burst and table.burst < table.maximum_keys_per_request:
        yield Problem("", "burst", f"{table.burst} is less than maximum_keys_per_request")
    if not 1 <= table.weight <= 100:
        yield Problem("", "weight", f"{table.weight} is not allowed (1 to 100)")


@check.register
def _(table: CustomerSection) -> Iterator[Problem]:
    yield from _name("name", table.name)
    if not table.contract:
        yield Problem("contract", "", "missing (a customer has at least one)")
    yield from duplicates("contract", "name", (contract.name for contract in table.contract))


@check.register
def _(table: SaeSection) -> Iterator[Problem]:
    try:
        sae_id(table.id)
    except MalformedName as error:
        yield Problem("", "id", f'"{table.id}" is no SAE ID ({error})')
    yield from duplicates("", "peers", table.peers or [])


@check.register
def _(table: Description) -> Iterator[Problem]:
    yield from duplicates("node", "name", (node.name for node in table.node))
    yield from duplicates("node", "number", (str(node.number) for node in table.node))
    yield from _addresses(table)
    known = {node.name for node in table.node}
    links = list(_links(table, known))
    yield from links
    if not links:
        yield from _sites(table)
        yield from _connection(table)
    if sum(Role.AAA in node.roles for node in table.node) != 1:
        yield Problem("node", "roles", "exactly one node has the role aaa")
    yield from _controllers(table)
    yield from duplicates("carrier", "class", (one.service_class or "all others" for one in table.carrier_classes))
    if not table.customer:
        yield Problem("customer", "", "missing (somebody must be there to have keys)")
    yield from duplicates("customer", "name", (customer.name for customer in table.customer))
    yield from duplicates("sae", "id", (sae.id for sae in table.sae))
    yield from _saes(table, known)


def _controllers(table: Description) -> Iterator[Problem]:
    database = table.controller.database
    if len(table.with_role(Role.CONTROLLER)) > 1 and (database is None or database.startswith("sqlite")):
        fault = "several nodes have the role controller: they share a PostgreSQL database (postgresql+psycopg://…)"
        yield Problem("controller", "database", fault)


def _addresses(table: Description) -> Iterator[Problem]:
    for place, node in enumerate(table.node, 1):
        try:
            fits = (ipaddress.IPv4Address(table.network.loopback) + node.number).is_loopback
        except ValueError:
            return
        if not fits:
            base = table.network.loopback
            yield Problem(f"node {place}", "number", f"{node.number} leads out of 127.0.0.0/8 from {base}")


def _links(table: Description, known: set[str]) -> Iterator[Problem]:
    for place, link in enumerate(table.link, 1):
        ends = True
        for name, end in (("a", link.a), ("b", link.b)):
            if end not in known:
                ends = False
                yield Problem(f"link {place}", name, f'"{end}" is no node (one of the [[node]] names)')
        if ends and table.roles_of(link) is None:
            yield Problem(
                f"link {place}",
                "",
                f"{link.id} connects no two KMSs (ckms to ckms, or ukms to akms, by the nodes' roles)",
            )
        yield from (
            Problem(f"link {place}", problem.field, problem.message)
            for problem in suite_problems(link.suites or table.network.suites, link.floor or table.network.floor)
        )
    yield from duplicates("link", "a and b", ("-".join(sorted(link.hop)) for link in table.link))


def _sites(table: Description) -> Iterator[Problem]:
    for place, node in enumerate(table.node, 1):
        count = sum(node.name in link.hop for link in table.link)
        if Role.UKMS in node.roles and count != 1:
            yield Problem(f"node {place}", "roles", f'the UKMS of "{node.name}" has {count} links (one, to its AKMS)')


def _connection(table: Description) -> Iterator[Problem]:
    carriers = [node.name for node in table.with_role(Role.CKMS)]
    if not carriers:
        return
    found = reachable(carriers[0], table.carrier().lengths)
    for place, node in enumerate(table.node, 1):
        if Role.CKMS in node.roles and node.name not in found:
            yield Problem(
                f"node {place}", "", f'no links lead from "{carriers[0]}" to "{node.name}" (all CKMSs are connected)'
            )


def _saes(table: Description, known: set[str]) -> Iterator[Problem]:
    customers = {customer.name: customer for customer in table.customer}
    saes = {sae.id: sae for sae in table.sae}
    for place, sae in enumerate(table.sae, 1):
        where = f"sae {place}"
        if sae.node not in known:
            yield Problem(where, "node", f'"{sae.node}" is no node (one of the [[node]] names)')
        elif Role.UKMS not in table.node_named(sae.node).roles:
            yield Problem(where, "node", f'"{sae.node}" has no UKMS (a node with the role ukms)')
        customer = customers.get(sae.customer)
        if customer is None:
            yield Problem(where, "customer", f'"{sae.customer}" is no customer (one of the [[customer]] names)')
            continue
        try:
            contract = table.contract_of(sae)
        except KeyError:
            names = ", ".join(contract.name for contract in customer.contract)
            yield Problem(where, "contract", f"names no contract of {sae.customer} (one of {names})")
            continue
        if sae.loopback and not contract.loopback:
            yield Problem(where, "loopback", f'the contract "{contract.name}" has no loopback')
        for peer in sae.peers or []:
            if peer not in saes:
                yield Problem(where, "peers", f'"{peer}" is no SAE (one of the [[sae]] ids)')
            elif saes[peer].customer != sae.customer:
                yield Problem(where, "peers", f'"{peer}" is of another customer ({sae.customer} only)')
            elif peer == sae.id:
                yield Problem(where, "peers", f'"{peer}" is itself (set loopback for that)')
