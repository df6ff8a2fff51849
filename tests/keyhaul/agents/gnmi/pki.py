"""Classic twins of service certificates, as `keyhaul network init` makes them."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from keyhaul.identity import authority, revocation
from keyhaul.identity.authority import Classic
from keyhaul.identity.keys import private_pem
from keyhaul.identity.names import NodeId, Role, ServiceName
from keyhaul.transport.tls import TlsFiles

DOMAIN = "lab.example"
DAY = datetime.timedelta(days=1)


def service(role: Role, node: str, domain: str = DOMAIN) -> ServiceName:
    return ServiceName(domain, role, NodeId(node))


CKMS = service(Role.CKMS, "9")
CONTROLLER = service(Role.CONTROLLER, "1")


class Twins:
    """One authority and what it has signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = datetime.datetime.now(datetime.UTC)
        self.authority = authority.make_classic(DOMAIN, Classic.SERVICES, self.now)
        self.revoked: list[x509.Certificate] = []
        self._made = 0

    def files(self, name: ServiceName, *, crl: bool = True, lifetime: datetime.timedelta = 30 * DAY) -> TlsFiles:
        """Sign a certificate for a service and write all that it needs into a folder of its own."""
        self._made += 1
        place = self.folder / f"{self._made}-{name.id}"
        place.mkdir()
        files = TlsFiles(
            place / "certificate.pem", place / "key.pem", place / "trust.pem", place / "crl.pem" if crl else None
        )
        self.renew(files, name, lifetime)
        files.trust.write_bytes(authority.pem(self.authority.certificate))
        if crl:
            self.write_crl(files)
        return files

    def renew(self, files: TlsFiles, name: ServiceName, lifetime: datetime.timedelta = 30 * DAY) -> None:
        key = generate_private_key(SECP256R1())
        leaf = authority.sign_service(self.authority, name, key.public_key(), self.now, lifetime)
        files.certificate.write_bytes(authority.pem(leaf))
        files.key.write_bytes(private_pem(key))

    def revoke(self, certificate: x509.Certificate) -> None:
        self.revoked.append(certificate)

    def write_crl(self, files: TlsFiles, now: datetime.datetime | None = None) -> None:
        assert files.crl is not None
        entries = [(each, x509.ReasonFlags.key_compromise) for each in self.revoked]
        made = revocation.sign_list(self.authority, None, now or self.now, revoke=entries, lifetime=30 * DAY)
        files.crl.write_bytes(revocation.pem([made]))


def leaf(files: TlsFiles) -> x509.Certificate:
    return x509.load_pem_x509_certificate(files.certificate.read_bytes())
