"""Private files stay private and whole, and a service starts only with files that belong together."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key

from keyhaul.config.services import IdentitySection
from keyhaul.identity import secretfile
from keyhaul.identity.authority import Authority, Classic, make_classic, make_intermediate, make_root, pem, sign_service
from keyhaul.identity.errors import IdentityError, UnsafePermissions
from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.keys import (
    fingerprint,
    generate,
    load_link_private,
    load_link_public,
    load_private,
    private_pem,
    public_pem,
)
from keyhaul.identity.names import NodeId, Role, ServiceName

NOW = datetime.now(UTC)
DOMAIN = "test.example"
NAME = ServiceName(DOMAIN, Role.AKMS, NodeId("2"))
SECTION = IdentitySection(
    certificate="certificate.pem",
    key="key.pem",
    trust="trust.pem",
    classic_certificate="classic-certificate.pem",
    classic_key="classic-key.pem",
    link_key="link-key.pem",
)
ROOT = make_root(DOMAIN, NOW)
AKMS = make_intermediate(ROOT, DOMAIN, Role.AKMS, NOW)
CLASSIC = make_classic(DOMAIN, Classic.SERVICES, NOW)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    key, classic = generate(), generate_private_key(SECP256R1())
    secretfile.write(tmp_path / "certificate.pem", pem(sign_service(AKMS, NAME, key.public_key(), NOW), *AKMS.chain))
    secretfile.write(tmp_path / "key.pem", private_pem(key))
    secretfile.write(tmp_path / "trust.pem", pem(ROOT.certificate))
    secretfile.write(tmp_path / "classic-certificate.pem", pem(sign_service(CLASSIC, NAME, classic.public_key(), NOW)))
    secretfile.write(tmp_path / "classic-key.pem", private_pem(classic))
    secretfile.write(tmp_path / "link-key.pem", private_pem(generate()))
    return tmp_path


def test_a_written_file_is_its_owners_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        secretfile.write(tmp_path / "key", b"secret")
    finally:
        os.umask(old)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_replacing_tightens_what_was_open_before(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o644)
    secretfile.write(path, b"new")
    assert secretfile.read(path) == b"new"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    secretfile.write(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        secretfile.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644])
def test_a_key_that_others_can_get_at_is_refused_with_the_remedy(directory: Path, mode: int) -> None:
    path = directory / "link-key.pem"
    path.chmod(mode)
    with pytest.raises(UnsafePermissions, match=f"chmod 600 {path}"):
        load_link_private(path)


def test_a_whole_identity_loads(directory: Path) -> None:
    identity = ServiceIdentity.load(SECTION, directory, NAME)
    assert identity.certificate == directory / "certificate.pem"
    assert identity.certificates()[0].public_key() == identity.signing_key().public_key()
    assert fingerprint(identity.link_key().public_key()) == fingerprint(
        load_link_private(directory / "link-key.pem").public_key()
    )


def test_everything_wrong_is_told_at_once(directory: Path) -> None:
    (directory / "key.pem").chmod(0o644)
    (directory / "classic-key.pem").unlink()
    (directory / "link-key.pem").write_bytes(b"nonsense")
    with pytest.raises(IdentityError) as caught:
        ServiceIdentity.load(SECTION, directory, NAME)
    told = str(caught.value).splitlines()
    assert len(told) == 3
    assert "chmod 600" in told[0]
    assert "classic-key.pem cannot be read" in told[1]
    assert "link-key.pem cannot be used" in told[2]


def test_a_certificate_for_somebody_else_is_refused(directory: Path) -> None:
    with pytest.raises(IdentityError, match=r"is for spiffe://test.example/akms/2, but this service is .*akms/3"):
        ServiceIdentity.load(SECTION, directory, ServiceName(DOMAIN, Role.AKMS, NodeId("3")))


def test_a_key_of_another_certificate_is_refused(directory: Path) -> None:
    secretfile.write(directory / "key.pem", private_pem(generate()))
    with pytest.raises(IdentityError, match="does not belong to the private key"):
        ServiceIdentity.load(SECTION, directory, NAME)


def wrong_role() -> tuple[Authority, str]:
    return make_intermediate(ROOT, DOMAIN, Role.UKMS, NOW), "authority for ukms services may not sign"


def wrong_root() -> tuple[Authority, str]:
    return make_intermediate(make_root(DOMAIN, NOW), DOMAIN, Role.AKMS, NOW), "was not signed under the root"


@pytest.mark.parametrize("make", [wrong_role, wrong_root])
def test_a_certificate_of_the_wrong_authority_is_refused(directory: Path, make: object) -> None:
    authority, told = make()  # type: ignore[operator]
    key = load_link_private(directory / "key.pem").public_key()
    secretfile.write(directory / "certificate.pem", pem(sign_service(authority, NAME, key, NOW), *authority.chain))
    with pytest.raises(IdentityError, match=told):
        ServiceIdentity.load(SECTION, directory, NAME)


def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path) -> None:
    key = generate()
    secretfile.write(tmp_path / "key", private_pem(key, b"right"))
    with pytest.raises(IdentityError, match="is encrypted"):
        load_private(tmp_path / "key")
    with pytest.raises(IdentityError, match="passphrase is wrong"):
        load_private(tmp_path / "key", b"wrong")
    assert load_private(tmp_path / "key", b"right").public_key() == key.public_key()


def test_keys_of_other_kinds_are_refused(tmp_path: Path) -> None:
    secretfile.write(tmp_path / "p384", private_pem(generate_private_key(SECP384R1())))
    with pytest.raises(IdentityError, match="another kind"):
        load_private(tmp_path / "p384")
    secretfile.write(tmp_path / "p256", private_pem(generate_private_key(SECP256R1())))
    with pytest.raises(IdentityError, match="no ML-DSA-65 key"):
        load_link_private(tmp_path / "p256")


def test_a_link_keys_public_half_is_read_back(tmp_path: Path) -> None:
    key = generate()
    (tmp_path / "public.pem").write_bytes(public_pem(key.public_key()))
    assert load_link_public(tmp_path / "public.pem") == key.public_key()
    for content in (b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", private_pem(key)):
        (tmp_path / "public.pem").write_bytes(content)
        with pytest.raises(IdentityError, match="public key"):
            load_link_public(tmp_path / "public.pem")
    with pytest.raises(IdentityError, match="cannot be read"):
        load_link_public(tmp_path / "absent.pem")


def test_a_seed_decides_the_key() -> None:
    assert generate(lambda count: bytes(count)).public_key() == generate(lambda count: bytes(count)).public_key()
