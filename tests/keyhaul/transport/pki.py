"""A small public key infrastructure for tests: one root, an authority per role, leaves on demand."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.names import NodeId, Role, ServiceName
from keyhaul.identity.verify import authority_uri

DOMAIN = "lab.example"
DAY = datetime.timedelta(days=1)


def service(role: Role, node: str) -> ServiceName:
    return ServiceName(DOMAIN, role, NodeId(node))


@dataclass
class Authority:
    """A signing certificate and what it has revoked."""

    certificate: x509.Certificate
    key: Any
    revoked: list[x509.Certificate] = field(default_factory=list)

    def crl(self) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - DAY)
            .next_update(now + DAY)
        )
        for certificate in self.revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(now - DAY)
                .build()
            )
        return builder.sign(self.key, _hash(self.key)).public_bytes(Encoding.PEM)


@dataclass
class Pki:
    """Issues certificates into a folder."""

    folder: Path
    root: Authority
    issuing: dict[Role, Authority] = field(default_factory=dict)
    kind: Callable[[], Any] = MLDSA65PrivateKey.generate

    @classmethod
    def make(cls, folder: Path, name: str = "root", kind: Callable[[], Any] = MLDSA65PrivateKey.generate) -> Pki:
        folder.mkdir(parents=True, exist_ok=True)
        key = kind()
        return cls(folder, Authority(_certificate(name, key, name, key, ca=True), key), kind=kind)

    def authority(self, role: Role) -> Authority:
        if role not in self.issuing:
            key = self.kind()
            name = f"{role} authority"
            certificate = _certificate(
                name, key, self.root.certificate, self.root.key, ca=True, uri=authority_uri(DOMAIN, role)
            )
            self.issuing[role] = Authority(certificate, key)
        return self.issuing[role]

    def identity(
        self,
        name: ServiceName,
        *,
        signer: Role | None = None,
        days: tuple[int, int] = (-1, 30),
        label: str = "",
        crl: bool = False,
    ) -> ServiceIdentity:
        """Write a certificate chain, key, trust and perhaps revocation lists for a service."""
        folder = self.folder / (label or name.id)
        folder.mkdir(exist_ok=True)
        authority = self.authority(signer or name.role)
        key = self.kind()
        leaf = _certificate(name.id, key, authority.certificate, authority.key, ca=False, uri=name.uri, days=days)
        _write(folder / "certificate.pem", [leaf, authority.certificate])
        (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (folder / "key.pem").chmod(0o600)
        _write(folder / "trust.pem", [self.root.certificate])
        if crl:
            self.write_crl(folder / "crl.pem")
        return ServiceIdentity(
            name=name,
            certificate=folder / "certificate.pem",
            key=folder / "key.pem",
            trust=folder / "trust.pem",
            crl=folder / "crl.pem" if crl else None,
            classic_certificate=None,
            classic_key=None,
            link_key_path=None,
        )

    def write_crl(self, path: Path) -> None:
        path.write_bytes(b"".join(authority.crl() for authority in (self.root, *self.issuing.values())))


def leaf_of(identity: ServiceIdentity) -> x509.Certificate:
    return identity.certificates()[0]


def _write(path: Path, certificates: list[x509.Certificate]) -> None:
    path.write_bytes(b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates))


def _certificate(
    subject: str,
    key: Any,
    issuer: x509.Certificate | str,
    issuer_key: Any,
    *,
    ca: bool,
    uri: str | None = None,
    days: tuple[int, int] = (-1, 30),
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if isinstance(issuer, str) else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if uri is not None:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False
        )
    return builder.sign(issuer_key, _hash(issuer_key))


def _hash(key: Any) -> hashes.SHA256 | None:
    return hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None
