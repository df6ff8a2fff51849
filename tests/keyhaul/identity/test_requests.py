"""A request is signed only when it asks for exactly what the operator expects."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from keyhaul.identity.authority import Classic
from keyhaul.identity.keys import generate
from keyhaul.identity.names import NodeId, Role, ServiceName
from keyhaul.identity.requests import RequestRefused, Subject, checked_key, make_request

EIGHT = Subject.of(ServiceName("test.example", Role.CKMS, NodeId("8")))
KEY = generate()


def crafted(common_name: str, *names: str, authority: bool = False) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    )
    if names:
        uris = [x509.UniformResourceIdentifier(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(uris), critical=False)
    if authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(KEY, None)


def test_an_honest_request_gives_its_key() -> None:
    assert checked_key(make_request(EIGHT, KEY), EIGHT) == KEY.public_key()
    site = Subject("kme-1", None, Classic.SITES, ("127.0.0.1", "kme.test"))
    classic = generate_private_key(SECP256R1())
    assert checked_key(make_request(site, classic), site) == classic.public_key()


@pytest.mark.parametrize(
    "lying",
    [
        crafted("ckms-8", "spiffe://test.example/akms/8"),
        crafted("ckms-8", "spiffe://test.example/ckms/9"),
        crafted("ckms-8", "spiffe://else.example/ckms/8"),
        crafted("ckms-8", "spiffe://test.example/authority/ckms"),
        crafted("ckms-8", "spiffe://test.example/ckms/8", "spiffe://test.example/aaa/dc"),
        crafted("ckms-8", "spiffe://test.example/ckms/8", "spiffe://test.example/ckms/8"),
        crafted("ckms-8"),
        crafted("aaa-dc", "spiffe://test.example/ckms/8"),
        crafted("ckms-8", "spiffe://test.example/ckms/8", authority=True),
    ],
)
def test_a_lying_request_is_refused(lying: x509.CertificateSigningRequest) -> None:
    with pytest.raises(RequestRefused):
        checked_key(lying, EIGHT)


def test_a_request_that_was_changed_is_refused() -> None:
    encoded = bytearray(make_request(EIGHT, KEY).public_bytes(Encoding.DER))
    encoded[-1] ^= 1
    with pytest.raises(RequestRefused, match="not signed with the key"):
        checked_key(x509.load_der_x509_csr(bytes(encoded)), EIGHT)


def test_a_key_of_another_kind_is_refused() -> None:
    request = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ckms-8")])
    )
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://test.example/ckms/8")])
    weak = request.add_extension(names, critical=False).sign(MLDSA44PrivateKey.generate(), None)
    with pytest.raises(RequestRefused, match="neither ML-DSA-65 nor P-256"):
        checked_key(weak, EIGHT)


def test_who_signs_follows_from_subject_and_key() -> None:
    classic = generate_private_key(SECP256R1()).public_key()
    assert EIGHT.authority(KEY.public_key()) == "ckms"
    assert EIGHT.authority(classic) == "classic"
    assert Subject("alice", None, Classic.SAES).authority(classic) == "saes"
    with pytest.raises(RequestRefused, match="P-256"):
        Subject("alice", None, Classic.SAES).authority(KEY.public_key())
