"""Which operator service a validated certificate chain proves, and that the right authority vouches for it.

OpenSSL has validated the path before: signatures, dates, basic constraints, revocation. What it does not know is that
each role has an intermediate of its own, and that one for UKMSs cannot make an AKMS.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509

from keyhaul.identity.errors import IdentityRefused
from keyhaul.identity.names import MalformedName, Role, ServiceName

_AUTHORITY = "authority"


def authority_uri(domain: str, role: Role) -> str:
    """Return the URI subject alternative name of the intermediate that may sign services of that role."""
    return f"spiffe://{domain}/{_AUTHORITY}/{role}"


def authority_role(certificate: x509.Certificate, domain: str) -> Role:
    """Return the role whose services this intermediate may sign.

    Raises:
        IdentityRefused: it is no such intermediate, or of another domain.
    """
    uri = _uri(certificate)
    for role in Role:
        if uri == authority_uri(domain, role):
            return role
    raise IdentityRefused(f"{uri!r} is not an authority for services of {domain}")


def certificate_name(certificate: x509.Certificate) -> ServiceName:
    """Return the service name in a certificate, without regard to who signed it.

    Raises:
        IdentityRefused: it has none, or more than one URI.
    """
    try:
        return ServiceName.parse(_uri(certificate))
    except MalformedName as error:
        raise IdentityRefused(str(error)) from None


def verified_name(chain: Sequence[x509.Certificate], domain: str) -> ServiceName:
    """Return the name that the leaf of a chain proves.

    Args:
        chain: leaf, intermediate, root, as OpenSSL validated it (not as the peer sent it). A longer one is
            refused: path length constraints do not count an intermediate that issues to its own name (RFC 5280
            section 4.2.1.9), which could so give itself another role.
        domain: the operator's own domain.

    Raises:
        IdentityRefused: the leaf does not name a service of this domain, or its issuer may not sign for its role.
    """
    if len(chain) != 3:
        raise IdentityRefused(
            f"a chain of {len(chain)} certificates is not allowed (service, its role's intermediate, root)"
        )
    leaf, issuer, root = chain
    if _is_authority(leaf):
        raise IdentityRefused("an authority's certificate is no service's")
    name = certificate_name(leaf)
    if name.domain != domain:
        raise IdentityRefused(f"{name.uri} is of another domain than {domain}")
    if leaf.issuer != issuer.subject or not _is_authority(issuer):
        raise IdentityRefused(f"the second certificate of the chain did not sign {name.uri}")
    if issuer.issuer != root.subject or root.issuer != root.subject or issuer.subject == root.subject:
        raise IdentityRefused(f"the issuer of {name.uri} was not signed by the root")
    allowed = authority_role(issuer, domain)
    if allowed is not name.role:
        raise IdentityRefused(f"the authority for {allowed} services may not sign {name.uri}")
    return name


def _uri(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        raise IdentityRefused("the certificate has no readable subject alternative name") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise IdentityRefused(f"the certificate has {len(uris)} URI names instead of one")
    return uris[0]


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
    except (x509.DuplicateExtension, ValueError):
        raise IdentityRefused("the certificate's extensions cannot be read") from None
