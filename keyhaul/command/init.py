"""Lays a laboratory network out: PKI and every service's directory, from one description.

What it makes under OUT::

    nodes/NODE/ROLE/config.toml, certificates, keys   one directory a service; nothing outside is needed
    operators/ROLE/{certificate,key,trust,crl}.pem    what the controller's tools need; in networks with a controller
    saes/SAE/{certificate,key,ca}.pem                 what an encryptor needs
    authorities/                                      roots and intermediates (`keyhaul pki` works on it)
    run/                                              sockets that the two ends of simulated modules share
    aaa.toml                                          what `keyhaul aaa import` reads
    network.json                                      for tools and tests

Directories have mode 0700, files 0600.

`aaa.toml` has the format of `keyhaul.config.subscribers`; SAEs that loop back stand among their own peers.
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.x509 import Certificate

from keyhaul.command.laboratory.listing import listing, operators
from keyhaul.config.carrier import encode
from keyhaul.config.checks import check
from keyhaul.config.controllers import AGENT_CRL, AGENT_TRUST, PLAN_FILE, STATEMENT_KEY, carrier_plan, pinned_key
from keyhaul.config.description import Description
from keyhaul.config.description_checks import load_description
from keyhaul.config.plan import SOCKET, Service, end, kme, services, subscribers
from keyhaul.config.problems import ConfigurationError, Problem
from keyhaul.config.services import QkdmConfig
from keyhaul.config.writer import to_toml
from keyhaul.identity import authority as signing
from keyhaul.identity import secretfile
from keyhaul.identity.authority import Authority, Classic
from keyhaul.identity.custody import ROOT, SERVICE_ROLES, Custody
from keyhaul.identity.keys import generate, private_pem, public_pem
from keyhaul.identity.names import Role, ServiceName
from keyhaul.randomness import Source, label, random_bytes

SOCKET_LIMIT = 107
"""Bytes of a Unix socket's path."""

BOOTSTRAP_BYTES = 64


class LayoutError(Exception):
    """A network cannot be laid out there; the message says what to do."""


def initialise(
    description: Path,
    out: Path,
    *,
    loopback: str | None = None,
    force: bool = False,
    source: Source = random_bytes,
) -> None:
    """Lay a network out in `out`, whole or not at all.

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


def read_description(file: Path, loopback: str | None = None) -> Description:
    """Return a network description, moved to other loopback addresses where that is asked for.

    Raises:
        ConfigurationError: it has errors; all are listed.
    """
    network = load_description(file)
    if loopback is None:
        return network
    section = msgspec.structs.replace(network.network, loopback=loopback)
    changed = msgspec.structs.replace(network, network=section)
    problems = [Problem("network", problem.field, problem.message) for problem in check(section)]
    problems = problems or list(check(changed))
    if problems:
        raise ConfigurationError(file, problems)
    return changed


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
        self._now = datetime.now(UTC)
        self._custody = Custody(directory / "authorities", durable=False)
        self._authorities: dict[str, Authority] = {}

    def build(self, out: Path) -> None:
        """Write everything; `out` is where it will lie in the end."""
        people = operators(self._network)
        here = {service.name.role for service in self._planned} | {name.role for name, _ in people}
        roles = [role for role in SERVICE_ROLES if role in here]
        self._custody.complete(self._network.network.domain, roles, self._now)
        for authority in self._custody.names():
            self._authorities[authority] = self._custody.authority(authority)
        (self._directory / "run").mkdir(mode=0o700)
        for service in self._planned:
            if isinstance(service.config, QkdmConfig):
                self._modules(service, service.config)
            else:
                self._identity(service)
            self._write(f"{service.directory}/config.toml", to_toml(service.config, _head(service)).encode())
        for name, directory in people:
            self._certified(name, directory)
        self._links()
        self._grant_key()
        self._controllers()
        for sae in self._network.sae:
            key = generate_private_key(SECP256R1())
            certificate = signing.sign_client(self._authorities[Classic.SAES], sae.id, key.public_key(), self._now)
            self._signed(Classic.SAES, f"saes/{sae.id}/certificate.pem", certificate)
            self._write(f"saes/{sae.id}/key.pem", private_pem(key))
            self._write(f"saes/{sae.id}/ca.pem", self._certificate(Classic.SITES))
        self._write("aaa.toml", to_toml(subscribers(self._network), _IMPORT_HEAD).encode())
        facts = json.dumps(listing(self._network, self._planned, out), indent=2, ensure_ascii=False)
        self._write("network.json", facts.encode() + b"\n")

    def _certified(self, name: ServiceName, here: str) -> None:
        key = generate()
        authority = self._authorities[name.role]
        certificate = signing.sign_service(authority, name, key.public_key(), self._now)
        self._signed(name.role, f"{here}/certificate.pem", certificate, *authority.chain)
        self._write(f"{here}/key.pem", private_pem(key))
        self._write(f"{here}/trust.pem", self._certificate(ROOT))
        self._write(f"{here}/crl.pem", (self._custody.directory / "crl.pem").read_bytes())

    def _identity(self, service: Service) -> None:
        here, name = service.directory, service.name
        self._certified(name, here)
        classic = generate_private_key(SECP256R1())
        twin = signing.sign_service(self._authorities[Classic.SERVICES], name, classic.public_key(), self._now)
        self._signed(Classic.SERVICES, f"{here}/classic-certificate.pem", twin)
        self._write(f"{here}/classic-key.pem", private_pem(classic))
        if name.role in (Role.UKMS, Role.AKMS, Role.CKMS):
            self._write(f"{here}/modules.pem", self._certificate(Classic.MODULES))
        if name.role is Role.UKMS:
            self._towards_saes(service)

    def _towards_saes(self, service: Service) -> None:
        here, node = service.directory, service.name.node
        key = generate_private_key(SECP256R1())
        certificate = signing.sign_server(
            self._authorities[Classic.SITES], kme(node), [self._network.host(node)], key.public_key(), self._now
        )
        self._signed(Classic.SITES, f"{here}/sae-certificate.pem", certificate)
        self._write(f"{here}/sae-key.pem", private_pem(key))
        self._write(f"{here}/saes.pem", self._certificate(Classic.SAES))
        self._write(f"{here}/saes-crl.pem", (self._custody.directory / Classic.SAES / "crl.pem").read_bytes())

    def _modules(self, service: Service, config: QkdmConfig) -> None:
        for module in config.module:
            key = generate_private_key(SECP256R1())
            hosts = [self._network.host(service.name.node)]
            certificate = signing.sign_server(
                self._authorities[Classic.MODULES], module.kme, hosts, key.public_key(), self._now
            )
            self._signed(Classic.MODULES, f"{service.directory}/{module.certificate}", certificate)
            self._write(f"{service.directory}/{module.key}", private_pem(key))
        self._write(f"{service.directory}/services.pem", self._certificate(Classic.SERVICES))

    def _links(self) -> None:
        keys = {}
        for service in self._planned:
            if service.name.role in (Role.UKMS, Role.AKMS, Role.CKMS):
                keys[service.name] = generate(self._source)
                self._write(f"{service.directory}/link-key.pem", private_pem(keys[service.name]))
        directories = {service.name: service.directory for service in self._planned}
        for link in self._network.link:
            secret = self._source(BOOTSTRAP_BYTES).hex().encode() + b"\n"
            first, second = end(self._network, link, link.a), end(self._network, link, link.b)
            for own, neighbour in ((first, second), (second, first)):
                here = f"{directories[own]}/links/{link.id}"
                self._write(f"{here}/neighbour.pem", public_pem(keys[neighbour].public_key()))
                self._write(f"{here}/bootstrap", secret)

    def _grant_key(self) -> None:
        key = generate(self._source)
        for service in self._planned:
            if service.name.role is Role.AAA:
                self._write(f"{service.directory}/grant-key.pem", private_pem(key))
            elif service.name.role is Role.AKMS:
                self._write(f"{service.directory}/aaa-key.pem", public_pem(key.public_key()))

    def _controllers(self) -> None:
        """What controllers and CKMSs need to meet; nothing where there is no controller."""
        controllers = [service for service in self._planned if service.name.role is Role.CONTROLLER]
        steered = [service for service in self._planned if service.name.role is Role.CKMS] if controllers else []
        for service in (*controllers, *steered):
            self._write(f"{service.directory}/{AGENT_TRUST}", self._certificate(Classic.SERVICES))
        revocations = (self._custody.directory / Classic.SERVICES / "crl.pem").read_bytes()
        for service in steered:
            self._write(f"{service.directory}/{AGENT_CRL}", revocations)
        for controller in controllers:
            key = generate(self._source)
            self._write(f"{controller.directory}/{STATEMENT_KEY}", private_pem(key))
            self._write(f"{controller.directory}/{PLAN_FILE}", encode(carrier_plan(self._network)))
            for service in steered:
                self._write(f"{service.directory}/{pinned_key(controller.name.node)}", public_pem(key.public_key()))

    def _certificate(self, authority: str) -> bytes:
        return signing.pem(self._authorities[authority].certificate)

    def _signed(self, authority: str, path: str, *chain: Certificate) -> None:
        self._custody.record(authority, chain[0])
        self._write(path, signing.pem(*chain))

    def _write(self, path: str, content: bytes) -> None:
        place = self._directory / path
        for parent in reversed(place.relative_to(self._directory).parents[:-1]):
            (self._directory / parent).mkdir(mode=0o700, exist_ok=True)
        secretfile.write(place, content, durable=False)


_IMPORT_HEAD = "Customers, contracts, sites and SAEs. Load with: keyhaul aaa import"


def _head(service: Service) -> str:
    return f"{service.name.id}. Start with: keyhaul serve {service.name.role} --config config.toml"
