"""What a PEM file of the PKI says, as plain data for people and programs."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from keyhaul.identity.errors import IdentityError
from keyhaul.identity.files import load_certificates
from keyhaul.identity.keys import fingerprint, load_link_public
from keyhaul.identity.revocation import list_number, load_lists


def describe(path: Path, now: datetime) -> list[dict[str, Any]]:
    """Return one description for each object in a file: certificates, a request, revocation lists, a link key.

    Raises:
        IdentityError: the file cannot be read, holds none of these, or holds a private key.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise IdentityError(f"{path} cannot be read: {error.strerror or error}") from None
    if b"PRIVATE KEY-----" in content:
        raise IdentityError(f"{path} holds a private key, which is not shown")
    if b"-----BEGIN CERTIFICATE-----" in content:
        return [_certificate(certificate, now) for certificate in load_certificates(path)]
    if b"-----BEGIN X509 CRL-----" in content:
        return [_list(each, now) for each in load_lists(path)]
    if b"-----BEGIN CERTIFICATE REQUEST-----" in content:
        try:
            return [_request(x509.load_pem_x509_csr(content))]
        except ValueError:
            raise IdentityError(f"{path} holds no readable request") from None
    if b"-----BEGIN PUBLIC KEY-----" in content:
        key = load_link_public(path)
        return [{"kind": "public key", "key": _kind(key), "fingerprint": fingerprint(key)}]
    raise IdentityError(f"{path} holds no certificate, request, revocation list or public key in PEM")


def _certificate(certificate: x509.Certificate, now: datetime) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "kind": "certificate",
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "names": _names(certificate.extensions),
        "not_before": _time(certificate.not_valid_before_utc),
        "not_after": _time(certificate.not_valid_after_utc),
        "days_left": (certificate.not_valid_after_utc - now).days,
        "key": _kind(certificate.public_key()),
        "authority": False,
    }
    for extension in certificate.extensions:
        match extension.value:
            case x509.BasicConstraints() as constraints:
                facts["authority"] = constraints.ca
            case x509.ExtendedKeyUsage() as usages:
                facts["usages"] = [_usage(usage) for usage in usages]
    return facts


def _request(request: x509.CertificateSigningRequest) -> dict[str, Any]:
    return {
        "kind": "request",
        "subject": request.subject.rfc4514_string(),
        "names": _names(request.extensions),
        "key": _kind(request.public_key()),
        "signature_valid": request.is_signature_valid,
    }


def _list(revocations: x509.CertificateRevocationList, now: datetime) -> dict[str, Any]:
    next_update = revocations.next_update_utc
    return {
        "kind": "revocation list",
        "issuer": revocations.issuer.rfc4514_string(),
        "number": list_number(revocations),
        "last_update": _time(revocations.last_update_utc),
        "next_update": None if next_update is None else _time(next_update),
        "days_left": None if next_update is None else (next_update - now).days,
        "revoked": [
            {
                "serial": f"{entry.serial_number:x}",
                "date": _time(entry.revocation_date_utc),
                "reason": _reason(entry),
            }
            for entry in revocations
        ],
    }


def _reason(entry: x509.RevokedCertificate) -> str:
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except x509.ExtensionNotFound:
        return "unspecified"


def _names(extensions: x509.Extensions) -> list[str]:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def _usage(usage: x509.ObjectIdentifier) -> str:
    names = {ExtendedKeyUsageOID.SERVER_AUTH: "server", ExtendedKeyUsageOID.CLIENT_AUTH: "client"}
    return names.get(usage, usage.dotted_string)


def _kind(key: object) -> str:
    if isinstance(key, MLDSA65PublicKey):
        return "ML-DSA-65"
    if isinstance(key, EllipticCurvePublicKey):
        return "P-256" if key.curve.name == "secp256r1" else key.curve.name
    return type(key).__name__


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
