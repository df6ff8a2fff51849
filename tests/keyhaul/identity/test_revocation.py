"""Revocation lists grow, are numbered, and keep what stood in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from keyhaul.identity.authority import Authority, make_intermediate, make_root, sign_service
from keyhaul.identity.errors import IdentityError
from keyhaul.identity.keys import generate
from keyhaul.identity.names import NodeId, Role, ServiceName
from keyhaul.identity.revocation import list_number, load_lists, pem, sign_list

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DOMAIN = "test.example"


@pytest.fixture(scope="module")
def akms() -> Authority:
    return make_intermediate(make_root(DOMAIN, NOW), DOMAIN, Role.AKMS, NOW)


def leaf(authority: Authority, node: str) -> x509.Certificate:
    return sign_service(authority, ServiceName(DOMAIN, Role.AKMS, NodeId(node)), generate().public_key(), NOW)


def test_a_new_list_has_the_next_number_and_all_former_entries(akms: Authority) -> None:
    first, second = leaf(akms, "1"), leaf(akms, "2")
    one = sign_list(akms, None, NOW, revoke=[(first, x509.ReasonFlags.key_compromise)])
    two = sign_list(akms, one, NOW + timedelta(days=1), revoke=[(second, x509.ReasonFlags.superseded)])
    assert (list_number(one), list_number(two)) == (1, 2)
    assert {entry.serial_number for entry in two} == {first.serial_number, second.serial_number}


def test_revoking_again_changes_neither_date_nor_reason(akms: Authority) -> None:
    certificate = leaf(akms, "1")
    one = sign_list(akms, None, NOW, revoke=[(certificate, x509.ReasonFlags.key_compromise)])
    two = sign_list(akms, one, NOW + timedelta(days=1), revoke=[(certificate, x509.ReasonFlags.unspecified)])
    (entry,) = two
    assert entry.revocation_date_utc == NOW
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise


def test_what_another_authority_signed_is_not_listed(akms: Authority) -> None:
    other = make_root(DOMAIN, NOW)
    with pytest.raises(IdentityError, match="was not signed by"):
        sign_list(akms, None, NOW, revoke=[(other.certificate, x509.ReasonFlags.unspecified)])
    with pytest.raises(IdentityError, match="previous revocation list is not of"):
        sign_list(akms, sign_list(other, None, NOW), NOW)


def test_lists_are_read_back_in_their_order(akms: Authority, tmp_path: Path) -> None:
    lists = [sign_list(make_root(DOMAIN, NOW), None, NOW), sign_list(akms, None, NOW)]
    path = tmp_path / "crl.pem"
    path.write_bytes(pem(lists))
    assert load_lists(path) == lists


@pytest.mark.parametrize("content", [b"", b"nothing", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"])
def test_a_file_without_lists_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "crl.pem"
    path.write_bytes(content)
    with pytest.raises(IdentityError, match="holds no revocation lists"):
        load_lists(path)
