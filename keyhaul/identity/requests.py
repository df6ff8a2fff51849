"""Certificate signing requests (RFC 2986): made on the node, checked against what the operator expects of it."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from keyhaul.identity.authority import Classic, PublicKey, host_name
from keyhaul.identity.errors import IdentityError
from keyhaul.identity.keys import PrivateKey
from keyhaul.identity.names import ServiceName


class RequestRefused(IdentityError):
    """A request that asks for something else than the operator means to sign."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a certificate is for."""

    common_name: str
    service: ServiceName | None = None
    """An operator service; else the purpose says what the common name is."""
    purpose: Classic = Classic.SERVICES
    hosts: tuple[str, ...] = ()
    """Host names and IP addresses of a server that SAEs or KMSs check by address."""

    @classmethod
    def of(cls, service: ServiceName) -> Subject:
        """The subject that is an operator service."""
        return cls(service.id, service)

    @property
    def names(self) -> list[x509.GeneralName]:
        """Its subject alternative names."""
        if self.service is not None:
            return [x509.UniformResourceIdentifier(self.service.uri)]
        return [host_name(host) for host in self.hosts]

    def authority(self, key: PublicKey) -> str:
        """Return which authority signs for it.

        Raises:
            RequestRefused: only P-256 certificates exist for this purpose.
        """
        if isinstance(key, EllipticCurvePublicKey):
            return self.purpose.value
        if self.service is None:
            raise RequestRefused(f"{self.common_name} needs a P-256 key: its peers know no ML-DSA")
        return self.service.role.value


def make_request(subject: Subject, key: PrivateKey) -> x509.CertificateSigningRequest:
    """Make a request that a subject signs with its own key."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject.common_name)])
    )
    if subject.names:
        builder = builder.add_extension(x509.SubjectAlternativeName(subject.names), critical=False)
    return builder.sign(key, None if isinstance(key, MLDSA65PrivateKey) else SHA256())


def checked_key(request: x509.CertificateSigningRequest, expected: Subject) -> PublicKey:
    """Return the public key of a request that asks for exactly the expected names.

    Raises:
        RequestRefused: it is for another subject, asks for more, is not signed with its own key, or its key is
            neither ML-DSA-65 nor P-256.
    """
    try:
        key = request.public_key()
        signed = request.is_signature_valid
        extensions = request.extensions
    except (ValueError, UnsupportedAlgorithm, InvalidSignature, x509.DuplicateExtension):
        raise RequestRefused("the request cannot be read, or its key is of an unknown kind") from None
    if not signed:
        raise RequestRefused("the request is not signed with the key that it names")
    common_names = [str(each.value) for each in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if common_names != [expected.common_name]:
        raise RequestRefused(
            f"the request is for {', '.join(common_names) or 'nobody'}, but {expected.common_name} is to be signed"
        )
    asked: list[x509.GeneralName] = []
    for extension in extensions:
        if not isinstance(extension.value, x509.SubjectAlternativeName):
            raise RequestRefused(
                f"the request asks for the extension {extension.oid.dotted_string}, which is not its to set"
            )
        asked += list(extension.value)
    if set(asked) != set(expected.names) or len(asked) != len(expected.names):
        raise RequestRefused(f"the request asks for {_shown(asked)}, but {_shown(expected.names)} is to be signed")
    if isinstance(key, MLDSA65PublicKey):
        return key
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        return key
    raise RequestRefused("the request's key is neither ML-DSA-65 nor P-256")


def _shown(names: list[x509.GeneralName]) -> str:
    return ", ".join(str(name.value) for name in names) or "no further name"
