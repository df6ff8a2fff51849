"""Keys, certificates and secrets of a laboratory network's services, made where they are used."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.x509 import Certificate

from keyhaul.config.controllers import AGENT_CRL, AGENT_TRUST, pinned_key
from keyhaul.config.description import Description
from keyhaul.config.plan import Service, kme
from keyhaul.config.services import ModuleConfig
from keyhaul.identity import authority as signing
from keyhaul.identity import secretfile
from keyhaul.identity.authority import Authority, Classic
from keyhaul.identity.custody import ROOT, Custody
from keyhaul.identity.keys import generate, private_pem, public_pem
from keyhaul.identity.names import NodeId, Role, ServiceName
from keyhaul.randomness import Source

BOOTSTRAP_BYTES = 64

LINK_KEY = "link-key.pem"

MODULE_TRUST = "services.pem"
"""The authority of the KMSs' P-256 certificates, in the directory of modules."""


def link_directory(link: str) -> str:
    """Where the material of one end of a link lies, relative to its service's directory."""
    return f"links/{link}"


def module_directory(link: str) -> str:
    """Where the material of a module lies, relative to its service's directory."""
    return f"modules/{link}"


class Material:
    """Makes it below one directory, in files of mode 0600.

    Args:
        network: the description.
        custody: of the network's authorities.
        directory: of the network, or of what will become a part of it.
        source: of secrets.
        durable: whether each file has to survive a power cut once it is written.
    """

    def __init__(
        self, network: Description, custody: Custody, directory: Path, source: Source, *, durable: bool
    ) -> None:
        self._network = network
        self._custody = custody
        self._directory = directory
        self._source = source
        self._durable = durable
        self._now = datetime.now(UTC)
        self._known: dict[str, Authority] = {}

    def certified(self, name: ServiceName, here: str) -> None:
        """What a service, or a person's tool, shows of itself, and whom it trusts."""
        key = generate()
        authority = self._authority(name.role)
        certificate = signing.sign_service(authority, name, key.public_key(), self._now)
        self._signed(name.role, f"{here}/certificate.pem", certificate, *authority.chain)
        self.write(f"{here}/key.pem", private_pem(key))
        self.write(f"{here}/trust.pem", self._certificate(ROOT))
        self.write(f"{here}/crl.pem", (self._custody.directory / "crl.pem").read_bytes())

    def identity(self, service: Service) -> MLDSA65PrivateKey | None:
        """All that a service has for itself; returns its link key, None where it has no links."""
        here, name = service.directory, service.name
        self.certified(name, here)
        classic = generate_private_key(SECP256R1())
        twin = signing.sign_service(self._authority(Classic.SERVICES), name, classic.public_key(), self._now)
        self._signed(Classic.SERVICES, f"{here}/classic-certificate.pem", twin)
        self.write(f"{here}/classic-key.pem", private_pem(classic))
        if name.role is Role.UKMS:
            self._towards_saes(service)
        if name.role not in (Role.UKMS, Role.AKMS, Role.CKMS):
            return None
        self.write(f"{here}/modules.pem", self._certificate(Classic.MODULES))
        key = generate(self._source)
        self.write(f"{here}/{LINK_KEY}", private_pem(key))
        return key

    def _towards_saes(self, service: Service) -> None:
        here, node = service.directory, service.name.node
        key = generate_private_key(SECP256R1())
        certificate = signing.sign_server(
            self._authority(Classic.SITES), kme(node), [self._network.host(node)], key.public_key(), self._now
        )
        self._signed(Classic.SITES, f"{here}/sae-certificate.pem", certificate)
        self.write(f"{here}/sae-key.pem", private_pem(key))
        self.write(f"{here}/saes.pem", self._certificate(Classic.SAES))
        self.write(f"{here}/saes-crl.pem", (self._custody.directory / Classic.SAES / "crl.pem").read_bytes())

    def module_host(self, service: Service) -> None:
        """What all modules of a node share."""
        self.write(f"{service.directory}/{MODULE_TRUST}", self._certificate(Classic.SERVICES))

    def module(self, service: Service, module: ModuleConfig) -> None:
        """What one module shows of itself."""
        key = generate_private_key(SECP256R1())
        hosts = [self._network.host(service.name.node)]
        certificate = signing.sign_server(
            self._authority(Classic.MODULES), module.kme, hosts, key.public_key(), self._now
        )
        self._signed(Classic.MODULES, f"{service.directory}/{module.certificate}", certificate)
        self.write(f"{service.directory}/{module.key}", private_pem(key))

    def bootstrap(self) -> bytes:
        """A link's first secret, as both of its ends keep it."""
        return self._source(BOOTSTRAP_BYTES).hex().encode() + b"\n"

    def link_end(self, service: Service, link: str, neighbour: MLDSA65PublicKey, bootstrap: bytes) -> None:
        """What one end of a link has of the other."""
        here = f"{service.directory}/{link_directory(link)}"
        self.write(f"{here}/neighbour.pem", public_pem(neighbour))
        self.write(f"{here}/bootstrap", bootstrap)

    def gnmi(self, service: Service) -> None:
        """Whom a controller, or the agent of a CKMS, meets over gNMI."""
        self.write(f"{service.directory}/{AGENT_TRUST}", self._certificate(Classic.SERVICES))
        if service.name.role is Role.CKMS:
            revocations = (self._custody.directory / Classic.SERVICES / "crl.pem").read_bytes()
            self.write(f"{service.directory}/{AGENT_CRL}", revocations)

    def pinned(self, service: Service, controllers: Iterable[tuple[NodeId, MLDSA65PublicKey]]) -> None:
        """Whose statements a CKMS believes."""
        for node, key in controllers:
            self.write(f"{service.directory}/{pinned_key(node)}", public_pem(key))

    def sae(self, sae: str) -> None:
        """What an encryptor has."""
        key = generate_private_key(SECP256R1())
        certificate = signing.sign_client(self._authority(Classic.SAES), sae, key.public_key(), self._now)
        self._signed(Classic.SAES, f"saes/{sae}/certificate.pem", certificate)
        self.write(f"saes/{sae}/key.pem", private_pem(key))
        self.write(f"saes/{sae}/ca.pem", self._certificate(Classic.SITES))

    def write(self, path: str, content: bytes) -> None:
        """Write a file below the directory, and make the directories that it needs (0700)."""
        place = self._directory / path
        for parent in reversed(place.relative_to(self._directory).parents[:-1]):
            (self._directory / parent).mkdir(mode=0o700, exist_ok=True)
        secretfile.write(place, content, durable=self._durable)

    def _authority(self, name: str) -> Authority:
        if name not in self._known:
            self._known[name] = self._custody.authority(name)
        return self._known[name]

    def _certificate(self, authority: str) -> bytes:
        return signing.pem(self._custody.certificate(authority))

    def _signed(self, authority: str, path: str, *chain: Certificate) -> None:
        self._custody.record(authority, chain[0])
        self.write(path, signing.pem(*chain))
