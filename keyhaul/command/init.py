"""Lays a laboratory network out: PKI and every service's directory, from one description.

What it makes under OUT::

    nodes/NODE/ROLE/config.toml, certificates, keys   one directory a service; nothing outside is needed
    operators/ROLE/{certificate,key,trust,crl}.pem    what the controller's tools need; in networks with a controller
    saes/SAE/{certificate,key,ca}.pem                 what an encryptor needs
    authorities/                                      roots and intermediates (`keyhaul pki` works on it)
    run/                                              sockets that the two ends of simulated modules share
    aaa.toml                                          what `keyhaul aaa import` reads
    network.json                                      for tools and tests
    network.toml                                      the description that it was made from

Directories have mode 0700, files 0600.

`aaa.toml` has the format of `keyhaul.config.subscribers`; SAEs that loop back stand among their own peers.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

from keyhaul.command.laboratory.listing import (
    LISTING_FILE,
    NETWORK_FILE,
    config_content,
    config_file,
    listing,
    listing_content,
    network_content,
    operators,
)
from keyhaul.command.laboratory.material import Material
from keyhaul.config.addresses import parse_address
from keyhaul.config.apart import warnings
from keyhaul.config.carrier import encode
from keyhaul.config.checks import check
from keyhaul.config.controllers import PLAN_FILE, STATEMENT_KEY, carrier_plan
from keyhaul.config.description import Description, NodeSection
from keyhaul.config.description_checks import load_description
from keyhaul.config.plan import SOCKET, Service, end, services, subscribers
from keyhaul.config.problems import ConfigurationError, Problem
from keyhaul.config.services import QkdmConfig
from keyhaul.config.writer import to_toml
from keyhaul.identity.custody import SERVICE_ROLES, Custody
from keyhaul.identity.keys import generate, private_pem, public_pem
from keyhaul.identity.names import Role, ServiceName
from keyhaul.randomness import Source, label, random_bytes

RANGE = 65_536
"""Addresses of a network's loopback range."""

SOCKET_LIMIT = 107
"""Bytes of a Unix socket's path."""


class LayoutError(Exception):
    """A network cannot be laid out there; the message says what to do."""


def initialise(
    description: Path,
    out: Path,
    *,
    loopback: str | None = None,
    force: bool = False,
    source: Source = random_bytes,
) -> list[str]:
    """Lay a network out in `out`, whole or not at all; return warnings of what it will not serve.

    Args:
        description: the network description.
        out: the directory to make; it must be absent or empty.
        loopback: overrides the description's loopback base, so that several networks fit on one machine.
        force: replace a network that was laid out there before, stores and keys included.
        source: of labels and bootstrap secrets.

    Raises:
        ConfigurationError: the description has errors; all are listed.
        LayoutError: `out` is in use, or its path is too long for Unix sockets.
        OSError: a file cannot be written; nothing is left behind.
    """
    network = read_description(description, loopback)
    out = Path(os.path.abspath(out))
    _check_free(out, force)
    planned = services(network, source)
    _check_sockets(network, planned, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    building = out.with_name(f".{out.name}.{label()}")
    building.mkdir(mode=0o700)
    try:
        _Laboratory(network, planned, building, source).build(out)
        _put_in_place(building, out)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return list(warnings(network))


def read_description(file: Path, loopback: str | None = None) -> Description:
    """Return a network description, moved to other loopback addresses where that is asked for.

    Raises:
        ConfigurationError: it has errors; all are listed.
    """
    network = load_description(file)
    if loopback is None:
        return network
    section = msgspec.structs.replace(network.network, loopback=loopback)
    problems = [Problem("network", problem.field, problem.message) for problem in check(section)]
    if problems:
        raise ConfigurationError(file, problems)
    nodes = [_moved(node, network.network.loopback, loopback) for node in network.node]
    changed = msgspec.structs.replace(network, network=section, node=nodes)
    problems = list(check(changed))
    if problems:
        raise ConfigurationError(file, problems)
    return changed


def _moved(node: NodeSection, base: str, other: str) -> NodeSection:
    """A node whose agent, where its address is given and is one of the network's range, moves with the range."""
    if node.agent is None:
        return node
    host, port = parse_address(node.agent)
    try:
        offset = int(ipaddress.IPv4Address(host)) - int(ipaddress.IPv4Address(base))
        moved = ipaddress.IPv4Address(other) + offset
    except ValueError:
        return node
    return msgspec.structs.replace(node, agent=f"{moved}:{port}") if 0 <= offset < RANGE else node


def _check_free(out: Path, force: bool) -> None:
    if not os.path.lexists(out):
        return
    if not out.is_dir() or out.is_symlink():
        raise LayoutError(f"{out} is no directory: choose another")
    if not any(out.iterdir()):
        return
    if not force:
        raise LayoutError(f"{out} is not empty: choose another directory, or replace what is there with --force")
    if not (out / "network.json").is_file():
        raise LayoutError(f"{out} holds something that is no network of keyhaul: choose another directory")


def _check_sockets(network: Description, planned: list[Service], out: Path) -> None:
    paths = [f"{service.directory}/{SOCKET}" for service in planned] + [f"run/{link.id}.sock" for link in network.link]
    longest = max(len(os.fsencode(path)) for path in paths) + 1
    if len(os.fsencode(out)) + longest > SOCKET_LIMIT:
        raise LayoutError(
            f"{out} is too long a path: Unix sockets lie below it, and theirs may have {SOCKET_LIMIT} bytes. "
            f"Choose a directory of at most {SOCKET_LIMIT - longest} bytes, e.g. /tmp/{network.network.name}"
        )


def _put_in_place(building: Path, out: Path) -> None:
    if not out.exists():
        building.rename(out)
        return
    former = out.with_name(f".{out.name}.{label()}")
    out.rename(former)
    try:
        building.rename(out)
    except OSError:
        former.rename(out)
        raise
    shutil.rmtree(former)


class _Laboratory:
    """One network under construction."""

    def __init__(self, network: Description, planned: list[Service], directory: Path, source: Source) -> None:
        self._network = network
        self._planned = planned
        self._directory = directory
        self._source = source
        self._custody = Custody(directory / "authorities", durable=False)
        self._material = Material(network, self._custody, directory, source, durable=False)

    def build(self, out: Path) -> None:
        """Write everything; `out` is where it will lie in the end."""
        people = operators(self._network)
        here = {service.name.role for service in self._planned} | {name.role for name, _ in people}
        roles = [role for role in SERVICE_ROLES if role in here]
        self._custody.complete(self._network.network.domain, roles, datetime.now(UTC))
        (self._directory / "run").mkdir(mode=0o700)
        link_keys = {}
        for service in self._planned:
            if isinstance(service.config, QkdmConfig):
                self._material.module_host(service)
                for module in service.config.module:
                    self._material.module(service, module)
            elif key := self._material.identity(service):
                link_keys[service.name] = key.public_key()
            self._write(config_file(service), config_content(service))
        for name, directory in people:
            self._material.certified(name, directory)
        self._links(link_keys)
        self._grant_key()
        self._controllers()
        for sae in self._network.sae:
            self._material.sae(sae.id)
        self._write("aaa.toml", to_toml(subscribers(self._network), _IMPORT_HEAD).encode())
        self._write(NETWORK_FILE, network_content(self._network))
        self._write(LISTING_FILE, listing_content(listing(self._network, self._planned, out)))

    def _links(self, keys: dict[ServiceName, MLDSA65PublicKey]) -> None:
        services = {service.name: service for service in self._planned}
        for link in self._network.link:
            secret = self._material.bootstrap()
            first, second = end(self._network, link, link.a), end(self._network, link, link.b)
            for own, neighbour in ((first, second), (second, first)):
                self._material.link_end(services[own], link.id, keys[neighbour], secret)

    def _grant_key(self) -> None:
        key = generate(self._source)
        for service in self._planned:
            if service.name.role is Role.AAA:
                self._write(f"{service.directory}/grant-key.pem", private_pem(key))
            elif service.name.role is Role.AKMS:
                self._write(f"{service.directory}/aaa-key.pem", public_pem(key.public_key()))

    def _controllers(self) -> None:
        """What controllers and CKMSs need to meet; nothing where there is no controller."""
        keys = []
        for controller in self._of(Role.CONTROLLER):
            key = generate(self._source)
            keys.append((controller.name.node, key.public_key()))
            self._material.gnmi(controller)
            self._write(f"{controller.directory}/{STATEMENT_KEY}", private_pem(key))
            self._write(f"{controller.directory}/{PLAN_FILE}", encode(carrier_plan(self._network)))
        for carrier in self._of(Role.CKMS) if keys else ():
            self._material.gnmi(carrier)
            self._material.pinned(carrier, keys)

    def _of(self, role: Role) -> list[Service]:
        return [service for service in self._planned if service.name.role is role]

    def _write(self, path: str, content: bytes) -> None:
        self._material.write(path, content)


_IMPORT_HEAD = "Customers, contracts, sites and SAEs. Load with: keyhaul aaa import"
