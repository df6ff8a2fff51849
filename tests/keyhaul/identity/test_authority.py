"""Authorities sign what OpenSSL accepts, and each role's intermediate is good for that role alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from OpenSSL import crypto

from keyhaul.identity.authority import (
    Authority,
    Classic,
    make_classic,
    make_intermediate,
    make_root,
    sign_client,
    sign_server,
    sign_service,
)
from keyhaul.identity.errors import IdentityRefused
from keyhaul.identity.keys import generate
from keyhaul.identity.names import NodeId, Role, ServiceName
from keyhaul.identity.revocation import sign_list
from keyhaul.identity.verify import authority_uri, verified_name

NOW = datetime.now(UTC)
DOMAIN = "test.example"
NAME = ServiceName(DOMAIN, Role.CKMS, NodeId("8"))


def validated(
    root: x509.Certificate,
    leaf: x509.Certificate,
    between: tuple[x509.Certificate, ...] = (),
    lists: tuple[x509.CertificateRevocationList, ...] = (),
    time: datetime | None = None,
) -> list[x509.Certificate]:
    """The chain as OpenSSL validates it, with revocation where there are lists."""
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(root))
    for each in lists:
        store.add_crl(each)
    if lists:
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
    if time is not None:
        store.set_time(time)
    context = crypto.X509StoreContext(
        store,
        crypto.X509.from_cryptography(leaf),
        [crypto.X509.from_cryptography(each) for each in between],
    )
    return [each.to_cryptography() for each in context.get_verified_chain()]


@pytest.fixture(scope="module")
def root() -> Authority:
    return make_root(DOMAIN, NOW)


@pytest.fixture(scope="module")
def ckms(root: Authority) -> Authority:
    return make_intermediate(root, DOMAIN, Role.CKMS, NOW)


def test_a_service_is_known_by_the_chain_that_openssl_validates(root: Authority, ckms: Authority) -> None:
    leaf = sign_service(ckms, NAME, generate().public_key(), NOW)
    chain = validated(root.certificate, leaf, ckms.chain)
    assert verified_name(chain, DOMAIN) == NAME


def test_an_intermediate_of_another_role_is_refused(root: Authority) -> None:
    ukms = make_intermediate(root, DOMAIN, Role.UKMS, NOW)
    leaf = sign_service(ukms, NAME, generate().public_key(), NOW)
    chain = validated(root.certificate, leaf, ukms.chain)
    with pytest.raises(IdentityRefused, match="authority for ukms services may not sign"):
        verified_name(chain, DOMAIN)


def test_a_leaf_signed_by_the_root_itself_is_refused(root: Authority) -> None:
    leaf = sign_service(root, NAME, generate().public_key(), NOW)
    with pytest.raises(IdentityRefused, match="chain of 2"):
        verified_name(validated(root.certificate, leaf), DOMAIN)


def test_another_domain_is_refused(root: Authority, ckms: Authority) -> None:
    leaf = sign_service(ckms, ServiceName("else.example", Role.CKMS, NodeId("8")), generate().public_key(), NOW)
    chain = validated(root.certificate, leaf, ckms.chain)
    with pytest.raises(IdentityRefused, match="another domain"):
        verified_name(chain, DOMAIN)
    with pytest.raises(IdentityRefused, match=r"not an authority for services of else\.example"):
        verified_name(chain, "else.example")


def test_an_intermediate_is_not_a_service(root: Authority, ckms: Authority) -> None:
    with pytest.raises(IdentityRefused, match="authority's certificate is no service's"):
        verified_name([ckms.certificate, ckms.certificate, root.certificate], DOMAIN)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_an_incomplete_chain_proves_nothing(root: Authority, ckms: Authority, count: int) -> None:
    leaf = sign_service(ckms, NAME, generate().public_key(), NOW)
    with pytest.raises(IdentityRefused, match=f"chain of {count}"):
        verified_name([leaf, ckms.certificate, root.certificate][:count], DOMAIN)


def test_a_certificate_without_uri_names_no_service(ckms: Authority, root: Authority) -> None:
    leaf = sign_client(ckms, "ckms-8", generate().public_key(), NOW)
    with pytest.raises(IdentityRefused, match="no readable subject alternative name"):
        verified_name(validated(root.certificate, leaf, ckms.chain), DOMAIN)


def test_an_intermediate_cannot_make_a_further_authority(root: Authority, ckms: Authority) -> None:
    below = make_intermediate(ckms, DOMAIN, Role.AKMS, NOW)
    leaf = sign_service(below, replace(NAME, role=Role.AKMS), generate().public_key(), NOW)
    with pytest.raises(crypto.X509StoreContextError, match="path length"):
        validated(root.certificate, leaf, (below.certificate, ckms.certificate))


def test_an_intermediate_cannot_give_itself_another_role_under_its_own_name(root: Authority, ckms: Authority) -> None:
    key = generate()
    uri = x509.UniformResourceIdentifier(authority_uri(DOMAIN, Role.AKMS))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(ckms.certificate.subject)
        .issuer_name(ckms.certificate.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(hours=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ckms.key.public_key()), critical=False)
        .sign(ckms.key, None)
    )
    stolen = Authority(certificate, key, (certificate, ckms.certificate))
    leaf = sign_service(stolen, replace(NAME, role=Role.AKMS), generate().public_key(), NOW)
    chain = validated(root.certificate, leaf, stolen.chain)
    assert len(chain) == 4
    with pytest.raises(IdentityRefused, match="chain of 4"):
        verified_name(chain, DOMAIN)
    with pytest.raises(IdentityRefused, match="was not signed by the root"):
        verified_name(chain[:3], DOMAIN)


def test_lifetimes_and_the_moment_before(root: Authority, ckms: Authority) -> None:
    leaf = sign_service(ckms, NAME, generate().public_key(), NOW, timedelta(days=30))
    for moment in (NOW - timedelta(minutes=30), NOW + timedelta(days=29)):
        assert validated(root.certificate, leaf, ckms.chain, time=moment)
    with pytest.raises(crypto.X509StoreContextError, match="expired"):
        validated(root.certificate, leaf, ckms.chain, time=NOW + timedelta(days=31))
    with pytest.raises(crypto.X509StoreContextError, match="not yet valid"):
        validated(root.certificate, leaf, ckms.chain, time=NOW - timedelta(hours=2))


def test_no_leaf_outlives_its_authority(root: Authority) -> None:
    brief = make_intermediate(root, DOMAIN, Role.CKMS, NOW, timedelta(days=10))
    leaf = sign_service(brief, NAME, generate().public_key(), NOW)
    assert leaf.not_valid_after_utc == brief.certificate.not_valid_after_utc


def test_classic_certificates_carry_what_their_peers_look_at() -> None:
    services = make_classic(DOMAIN, Classic.SERVICES, NOW)
    twin = sign_service(services, NAME, generate_private_key(SECP256R1()).public_key(), NOW)
    assert validated(services.certificate, twin)
    assert twin.subject.rfc4514_string() == "CN=ckms-8"
    sites = make_classic(DOMAIN, Classic.SITES, NOW)
    site = sign_server(sites, "kme-1", ["127.16.0.1", "kme.test"], generate_private_key(SECP256R1()).public_key(), NOW)
    names = site.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each.value) for each in names] == ["127.16.0.1", "kme.test"]
    with pytest.raises(crypto.X509StoreContextError):
        validated(services.certificate, site)


def test_revocation_reaches_leaves_and_intermediates(root: Authority, ckms: Authority) -> None:
    leaf = sign_service(ckms, NAME, generate().public_key(), NOW)
    other = sign_service(ckms, NAME, generate().public_key(), NOW)
    of_root, of_ckms = sign_list(root, None, NOW), sign_list(ckms, None, NOW)
    assert validated(root.certificate, leaf, ckms.chain, (of_root, of_ckms))
    revoked = sign_list(ckms, of_ckms, NOW, revoke=[(leaf, x509.ReasonFlags.key_compromise)])
    with pytest.raises(crypto.X509StoreContextError, match="revoked"):
        validated(root.certificate, leaf, ckms.chain, (of_root, revoked))
    assert validated(root.certificate, other, ckms.chain, (of_root, revoked))
    without_ckms = sign_list(root, of_root, NOW, revoke=[(ckms.certificate, x509.ReasonFlags.unspecified)])
    with pytest.raises(crypto.X509StoreContextError, match="revoked"):
        validated(root.certificate, other, ckms.chain, (without_ckms, revoked))


def test_a_missing_or_outdated_list_fails_closed(root: Authority, ckms: Authority) -> None:
    leaf = sign_service(ckms, NAME, generate().public_key(), NOW)
    with pytest.raises(crypto.X509StoreContextError, match="unable to get certificate CRL"):
        validated(root.certificate, leaf, ckms.chain, (sign_list(root, None, NOW),))
    lists = (sign_list(root, None, NOW), sign_list(ckms, None, NOW, lifetime=timedelta(days=1)))
    with pytest.raises(crypto.X509StoreContextError, match="CRL has expired"):
        validated(root.certificate, leaf, ckms.chain, lists, time=NOW + timedelta(days=2))
