"""Who may do what with a target: decided anew for every RPC from the certificate that the peer's TLS session proved.

gRPC has validated the path and its dates during the handshake. What it does not do is done here: revocation, dates and
trust while a connection stands, the name of an operator service, its role, and the key agreement (NIST FIPS 203),
which gRPC negotiates but cannot be told to demand.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from keyhaul.agents.gnmi.errors import Code, Refused
from keyhaul.identity.errors import IdentityError
from keyhaul.identity.files import load_certificates
from keyhaul.identity.names import Role, ServiceName
from keyhaul.identity.revocation import load_lists
from keyhaul.identity.verify import certificate_name
from keyhaul.transport.tls import TlsFiles

log = structlog.get_logger(__name__)

GROUP = "X25519MLKEM768"
VERSION = "TLSv1.3"

_KEPT = 1024
"""Certificates whose verification is remembered."""


class Rpc(Enum):
    """The RPCs of a target."""

    CAPABILITIES = "Capabilities"
    GET = "Get"
    SET = "Set"
    SUBSCRIBE = "Subscribe"


PERMITTED: Mapping[Role, frozenset[Rpc]] = {Role.CONTROLLER: frozenset(Rpc)}
"""A node's state is for its controller: operators and their tools ask the controller, by role."""

_List = tuple[x509.Certificate, x509.CertificateRevocationList]
"""An authority and a list that it has signed."""

AuthContext = Mapping[str, Iterable[bytes]]
"""What gRPC says of a connection."""


class _Verified(NamedTuple):
    name: ServiceName
    certificate: x509.Certificate
    issuer: x509.Certificate


class Peers:
    """Decides about peers; follows trust and revocation lists as they change on disk."""

    def __init__(self, files: TlsFiles, domain: str) -> None:
        """Read the trust (authorities that sign peers directly) and the revocation lists.

        Args:
            files: where they are; certificate and key are not looked at.
            domain: the operator's.

        Raises:
            IdentityError: a file cannot be read.
        """
        self._files = files
        self._domain = domain
        self._verified: dict[bytes, _Verified] = {}
        self._stamp = files.stamp()
        self._trust, self._lists = _read(files)

    def admit(self, context: AuthContext, rpc: Rpc, now: datetime.datetime) -> ServiceName:
        """Return who calls, if that service may.

        Raises:
            Refused: UNAUTHENTICATED where the connection or certificate proves nothing, PERMISSION_DENIED where it
                proves a service that may not.
        """
        protected(context)
        name = self._named(_one(context, "x509_pem_cert"), now)
        if rpc not in PERMITTED.get(name.role, frozenset()):
            raise Refused(Code.PERMISSION_DENIED, f"{name} may not call {rpc.value}")
        return name

    def _named(self, pem: bytes, now: datetime.datetime) -> ServiceName:
        stamp = self._files.stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            self._renew()
        if pem not in self._verified:
            if len(self._verified) >= _KEPT:
                self._verified.clear()
            self._verified[pem] = self._verify(pem)
        verified = self._verified[pem]
        certificate = verified.certificate
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise Refused(Code.UNAUTHENTICATED, "the certificate has expired, or is not valid yet")
        if self._files.crl is not None:
            self._not_revoked(verified, now)
        return verified.name

    def _renew(self) -> None:
        try:
            self._trust, self._lists = _read(self._files)
        except IdentityError as error:
            log.error("gnmi trust or revocation lists changed but cannot be used; the former stay", error=str(error))
        else:
            self._verified.clear()

    def _verify(self, pem: bytes) -> _Verified:
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            name = certificate_name(certificate)
        except (ValueError, IdentityError):
            raise Refused(Code.UNAUTHENTICATED, "the certificate names no operator service") from None
        issuer = next((each for each in self._trust if _issued(certificate, each)), None)
        if issuer is None:
            raise Refused(Code.UNAUTHENTICATED, "the certificate was not signed by an authority that is trusted here")
        if name.domain != self._domain:
            raise Refused(Code.UNAUTHENTICATED, f"the certificate is of another domain than {self._domain}")
        return _Verified(name, certificate, issuer)

    def _not_revoked(self, verified: _Verified, now: datetime.datetime) -> None:
        for authority, each in self._lists:
            until = each.next_update_utc
            if authority != verified.issuer or until is None or not each.last_update_utc <= now <= until:
                continue
            if each.get_revoked_certificate_by_serial_number(verified.certificate.serial_number) is not None:
                raise Refused(Code.UNAUTHENTICATED, "the certificate was revoked")
            return
        raise Refused(Code.UNAUTHENTICATED, "no current revocation list of the certificate's authority")


def protected(context: AuthContext) -> None:
    """Check that a connection is TLS 1.3 with a key agreement that quantum computers do not break.

    Raises:
        Refused: UNAUTHENTICATED: it is not.
    """
    version, group = _one(context, "ssl_tls_version"), _one(context, "ssl_negotiated_key_exchange_group")
    if version != VERSION.encode() or group != GROUP.encode():
        shown = f"{version.decode(errors='replace')} with {group.decode(errors='replace')}"
        raise Refused(Code.UNAUTHENTICATED, f"{shown} is not acceptable here: use {VERSION} with {GROUP}")


def _one(context: AuthContext, name: str) -> bytes:
    values = list(context.get(name, ()))
    if len(values) != 1:
        raise Refused(Code.UNAUTHENTICATED, f"the connection has no {name}")
    return values[0]


def _read(files: TlsFiles) -> tuple[list[x509.Certificate], list[_List]]:
    """Return the trust, and the revocation lists that its authorities have signed."""
    trust = load_certificates(files.trust)
    lists = [] if files.crl is None else load_lists(files.crl)
    return trust, [(authority, each) for authority in trust for each in lists if _signed(each, authority)]


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _signed(revocations: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        valid = revocations.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return valid and revocations.issuer == authority.subject
