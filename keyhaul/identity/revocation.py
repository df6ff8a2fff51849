"""Revocation lists (RFC 5280 section 5), one for each authority.

A peer that checks revocation wants an unexpired list of every authority in a chain, the root's included; a service's
`crl` file therefore holds all of the operator's lists, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from keyhaul.identity.authority import BACKDATE, Authority
from keyhaul.identity.errors import IdentityError

CRL_LIFETIME = timedelta(days=365)
"""A list must be signed anew, or be replaced by a newer one, before this has passed."""


def sign_list(
    authority: Authority,
    previous: x509.CertificateRevocationList | None,
    now: datetime,
    *,
    revoke: Iterable[tuple[x509.Certificate, x509.ReasonFlags]] = (),
    lifetime: timedelta = CRL_LIFETIME,
) -> x509.CertificateRevocationList:
    """Sign an authority's next list: what stood in the previous one, and what is revoked now.

    A certificate that stood there already keeps its first date and reason.

    Raises:
        IdentityError: a certificate was not signed by this authority, or the previous list is another's.
    """
    number = 1
    revoked: dict[int, x509.RevokedCertificate] = {}
    if previous is not None:
        if not previous.is_signature_valid(authority.key.public_key()):
            raise IdentityError(f"the previous revocation list is not of {common_name(authority.certificate.subject)}")
        number = list_number(previous) + 1
        revoked = {entry.serial_number: entry for entry in previous}
    for certificate, reason in revoke:
        if certificate.issuer != authority.certificate.subject:
            raise IdentityError(
                f"{common_name(certificate.subject)} was not signed by {common_name(authority.certificate.subject)}"
            )
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(now)
        if reason is not x509.ReasonFlags.unspecified:
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        revoked.setdefault(certificate.serial_number, entry.build())
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - BACKDATE)
        .next_update(now + lifetime)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    for listed in revoked.values():
        builder = builder.add_revoked_certificate(listed)
    return builder.sign(authority.key, None if isinstance(authority.key, MLDSA65PrivateKey) else SHA256())


def list_number(revocations: x509.CertificateRevocationList) -> int:
    """Return a list's number: each new list of an authority has a greater one."""
    return revocations.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def pem(revocations: Iterable[x509.CertificateRevocationList]) -> bytes:
    """Return lists as PEM, one after the other."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in revocations)


def load_lists(path: Path) -> list[x509.CertificateRevocationList]:
    """Read the revocation lists of a PEM file.

    Raises:
        IdentityError: the file cannot be read or holds anything else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise IdentityError(f"{path} cannot be read: {error.strerror or error}") from None
    end = b"-----END X509 CRL-----"
    parts = content.split(end)
    try:
        lists = [x509.load_pem_x509_crl(part + end) for part in parts[:-1]]
    except ValueError:
        raise IdentityError(f"{path} holds no revocation lists in PEM") from None
    if not lists or parts[-1].strip():
        raise IdentityError(f"{path} holds no revocation lists in PEM")
    return lists


def common_name(name: x509.Name) -> str:
    """Return the common name of a subject or issuer, or all of it where it has none."""
    for attribute in name.get_attributes_for_oid(x509.NameOID.COMMON_NAME):
        return str(attribute.value)
    return name.rfc4514_string()
