"""Authorities and the certificates that they sign (RFC 5280; ML-DSA by RFC 9881).

The operator's own: an offline ML-DSA-65 root, and under it one ML-DSA-65 intermediate for each role, whose URI name
says which role it may sign. Beside them P-256 authorities, each a root of its own: for the classic twins of service
certificates, for SAEs, for QKD modules, and for what SAEs see of a UKMS.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyhaul.identity.keys import PrivateKey, generate
from keyhaul.identity.names import Role, ServiceName
from keyhaul.identity.verify import authority_uri

PublicKey = MLDSA65PublicKey | EllipticCurvePublicKey

ROOT_LIFETIME = timedelta(days=20 * 365)
AUTHORITY_LIFETIME = timedelta(days=5 * 365)
CERTIFICATE_LIFETIME = timedelta(days=365)
BACKDATE = timedelta(hours=1)
"""Certificates begin to be valid this long before they are signed, for peers whose clocks are behind."""


class Classic(StrEnum):
    """The P-256 authorities."""

    SERVICES = "classic"
    """Twins of service certificates, for peers that know no ML-DSA."""
    SAES = "saes"
    MODULES = "modules"
    SITES = "sites"
    """What SAEs see of a UKMS."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate that may sign others, with its private key."""

    certificate: x509.Certificate
    key: PrivateKey
    chain: tuple[x509.Certificate, ...] = ()
    """What goes behind a leaf so that the root alone need be trusted: this certificate, unless it is a root."""


def make_root(domain: str, now: datetime, lifetime: timedelta = ROOT_LIFETIME) -> Authority:
    """Make the operator's ML-DSA-65 root."""
    key = generate()
    name = _subject(domain, f"Keyhaul root of {domain}")
    builder = _builder(name, name, key.public_key(), now, now + lifetime)
    return Authority(_sign(_as_authority(builder, key.public_key(), key.public_key(), path_length=1), key), key)


def make_intermediate(
    root: Authority, domain: str, role: Role, now: datetime, lifetime: timedelta = AUTHORITY_LIFETIME
) -> Authority:
    """Make the ML-DSA-65 authority that may sign services of one role."""
    key = generate()
    builder = _builder(
        _subject(domain, f"Keyhaul {role} authority of {domain}"),
        root.certificate.subject,
        key.public_key(),
        now,
        min(now + lifetime, root.certificate.not_valid_after_utc),
    ).add_extension(
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(authority_uri(domain, role))]), critical=False
    )
    certificate = _sign(_as_authority(builder, key.public_key(), root.key.public_key(), path_length=0), root.key)
    return Authority(certificate, key, (certificate,))


def make_classic(domain: str, purpose: Classic, now: datetime, lifetime: timedelta = ROOT_LIFETIME) -> Authority:
    """Make one of the P-256 authorities."""
    key = generate_private_key(SECP256R1())
    name = _subject(domain, f"Keyhaul {purpose} authority of {domain}")
    builder = _builder(name, name, key.public_key(), now, now + lifetime)
    return Authority(_sign(_as_authority(builder, key.public_key(), key.public_key(), path_length=0), key), key)


def sign_service(
    authority: Authority,
    name: ServiceName,
    key: PublicKey,
    now: datetime,
    lifetime: timedelta = CERTIFICATE_LIFETIME,
) -> x509.Certificate:
    """Sign a service's certificate: common name = service id, URI name, client and server.

    Whether the authority may sign for that role is the caller's to check (`custody.Custody.for_service` picks the
    right one); a peer refuses a certificate of the wrong intermediate.
    """
    return _leaf(
        authority,
        name.id,
        key,
        now,
        lifetime,
        [x509.UniformResourceIdentifier(name.uri)],
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    )


def sign_client(
    authority: Authority,
    common_name: str,
    key: PublicKey,
    now: datetime,
    lifetime: timedelta = CERTIFICATE_LIFETIME,
) -> x509.Certificate:
    """Sign an SAE's certificate: its SAE ID is the common name."""
    return _leaf(authority, common_name, key, now, lifetime, [], [ExtendedKeyUsageOID.CLIENT_AUTH])


def sign_server(
    authority: Authority,
    common_name: str,
    hosts: Sequence[str],
    key: PublicKey,
    now: datetime,
    lifetime: timedelta = CERTIFICATE_LIFETIME,
) -> x509.Certificate:
    """Sign a KME's certificate: its KME ID is the common name, its host names and IP addresses are names as well."""
    return _leaf(
        authority,
        common_name,
        key,
        now,
        lifetime,
        [host_name(host) for host in hosts],
        [ExtendedKeyUsageOID.SERVER_AUTH],
    )


def pem(*certificates: x509.Certificate) -> bytes:
    """Return certificates as PEM, one after the other."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def host_name(host: str) -> x509.GeneralName:
    """Return a host name or IP address as a subject alternative name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _leaf(
    authority: Authority,
    common_name: str,
    key: PublicKey,
    now: datetime,
    lifetime: timedelta,
    names: Sequence[x509.GeneralName],
    usages: Sequence[x509.ObjectIdentifier],
) -> x509.Certificate:
    builder = (
        _builder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]),
            authority.certificate.subject,
            key,
            now,
            min(now + lifetime, authority.certificate.not_valid_after_utc),
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _sign(builder, authority.key)


def _subject(domain: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, domain[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(until)
    )


def _as_authority(
    builder: x509.CertificateBuilder, key: PublicKey, issuer_key: PublicKey, path_length: int
) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _sign(builder: x509.CertificateBuilder, key: PrivateKey) -> x509.Certificate:
    return builder.sign(key, None if isinstance(key, MLDSA65PrivateKey) else SHA256())
