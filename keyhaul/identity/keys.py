"""ML-DSA-65 keys (FIPS 204) in PEM files: link keys, AAA's grant key, the keys of certificates.

A link key outlives certificates: neighbours pin its public half. A private file holds the 32-byte seed as PKCS #8
(RFC 9881), a public one a SubjectPublicKeyInfo.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from keyhaul.identity import secretfile
from keyhaul.identity.errors import IdentityError
from keyhaul.randomness import Source, random_bytes

PrivateKey = MLDSA65PrivateKey | EllipticCurvePrivateKey
"""A key of a certificate: ML-DSA-65 between services, P-256 where the other side knows nothing else."""


def generate(source: Source = random_bytes) -> MLDSA65PrivateKey:
    """Make an ML-DSA-65 key from a 32-byte seed."""
    return MLDSA65PrivateKey.from_seed_bytes(source(32))


def private_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """Return the key as PKCS #8 PEM, encrypted where there is a passphrase."""
    protection: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)


def public_pem(key: MLDSA65PublicKey) -> bytes:
    """Return the public key as SubjectPublicKeyInfo PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: MLDSA65PublicKey) -> str:
    """Return what two operators compare by voice: the SHA-256 of the raw public key in groups of four digits."""
    digest = Hash(SHA256())
    digest.update(key.public_bytes_raw())
    digits = digest.finalize().hex()
    return " ".join(digits[place : place + 4] for place in range(0, len(digits), 4))


def load_private(path: Path, passphrase: bytes | None = None) -> PrivateKey:
    """Read a private key, ML-DSA-65 or P-256.

    Raises:
        UnsafePermissions: others than the owner can read the file.
        IdentityError: the file cannot be read, is no such key, or its passphrase is missing or wrong.
    """
    content = secretfile.read(path)
    try:
        key = load_pem_private_key(content, passphrase)
    except TypeError:
        if passphrase is None:
            raise IdentityError(f"{path} is encrypted: give its passphrase") from None
        return load_private(path)
    except ValueError:
        reason = "the passphrase is wrong, or it is no private key" if passphrase else "it is no private key in PEM"
        raise IdentityError(f"{path} cannot be used: {reason}") from None
    except UnsupportedAlgorithm:
        raise IdentityError(f"{path} holds a key of an unknown kind: ML-DSA-65 or P-256 is needed") from None
    if isinstance(key, MLDSA65PrivateKey):
        return key
    if isinstance(key, EllipticCurvePrivateKey) and key.curve.name == "secp256r1":
        return key
    raise IdentityError(f"{path} holds a key of another kind: ML-DSA-65 or P-256 is needed")


def load_link_private(path: Path) -> MLDSA65PrivateKey:
    """Read an ML-DSA-65 private key: a link key, or AAA's grant key.

    Raises:
        UnsafePermissions: others than the owner can read the file.
        IdentityError: the file cannot be read or holds no ML-DSA-65 private key.
    """
    key = load_private(path)
    if not isinstance(key, MLDSA65PrivateKey):
        raise IdentityError(f"{path} is no ML-DSA-65 key. Make one with: keyhaul pki link-key")
    return key


def load_link_public(path: Path) -> MLDSA65PublicKey:
    """Read a pinned ML-DSA-65 public key: a neighbour's link key, or AAA's grant key.

    Raises:
        IdentityError: the file cannot be read or holds no ML-DSA-65 public key.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise IdentityError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise IdentityError(f"{path} is no public key in PEM") from None
    if not isinstance(key, MLDSA65PublicKey):
        raise IdentityError(f"{path} is no ML-DSA-65 public key: the neighbour's comes from keyhaul pki link-key there")
    return key
