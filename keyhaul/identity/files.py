"""The identity of a service as it lies in its directory: certificates, private keys, trust and revocation lists."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyhaul.config.loader import resolve
from keyhaul.config.services import IdentitySection
from keyhaul.identity.errors import IdentityError
from keyhaul.identity.keys import PrivateKey, load_link_private, load_private
from keyhaul.identity.names import ServiceName
from keyhaul.identity.verify import certificate_name, verified_name


def load_certificates(path: Path) -> list[x509.Certificate]:
    """Read the certificates of a PEM file in their order.

    Raises:
        IdentityError: the file cannot be read or holds no certificate.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise IdentityError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise IdentityError(f"{path} holds no certificate in PEM") from None


@dataclass(frozen=True, slots=True)
class ServiceIdentity:
    """Where a service's certificates and keys are. The files may be renewed while the service runs."""

    name: ServiceName
    certificate: Path
    """ML-DSA-65 certificate, then its intermediate."""
    key: Path
    trust: Path
    """The operator's root."""
    crl: Path | None
    classic_certificate: Path | None
    """The P-256 certificate of the same name."""
    classic_key: Path | None
    link_key_path: Path | None

    @classmethod
    def load(cls, section: IdentitySection, directory: Path, name: ServiceName) -> Self:
        """Find the files of an `[identity]` table and check all of them, dates and revocation apart.

        Args:
            section: the table.
            directory: where the configuration file is.
            name: who this service is; the certificates must say the same.

        Raises:
            IdentityError: files are missing, unreadable, open to others, or do not belong together; the
                message lists everything that is wrong.
        """

        def place(path: str | None) -> Path | None:
            return None if path is None else resolve(directory, path)

        identity = cls(
            name=name,
            certificate=resolve(directory, section.certificate),
            key=resolve(directory, section.key),
            trust=resolve(directory, section.trust),
            crl=place(section.crl),
            classic_certificate=place(section.classic_certificate),
            classic_key=place(section.classic_key),
            link_key_path=place(section.link_key),
        )
        problems = identity._problems()
        if problems:
            raise IdentityError("\n".join(problems))
        return identity

    def certificates(self) -> list[x509.Certificate]:
        """Read the ML-DSA-65 certificate and its intermediate, leaf first, as they are on disk now."""
        return load_certificates(self.certificate)

    def signing_key(self) -> MLDSA65PrivateKey:
        """Read the private key of the ML-DSA-65 certificate as it is on disk now."""
        return load_link_private(self.key)

    def link_key(self) -> MLDSA65PrivateKey:
        """Read this KMS's link key.

        Raises:
            IdentityError: there is none, or it cannot be used.
        """
        if self.link_key_path is None:
            raise IdentityError(f"{self.name} has no link key: set link_key in the table [identity]")
        return load_link_private(self.link_key_path)

    def _problems(self) -> list[str]:
        problems: list[str] = []
        for check in (self._check_service_pair, self._check_classic_pair, self._check_link_key, self._check_crl):
            try:
                check()
            except IdentityError as error:
                problems.append(str(error))
        return problems

    def _check_service_pair(self) -> None:
        chain = self.certificates()
        roots = load_certificates(self.trust)
        _belong_together(self.certificate, chain[0], self.key, self.signing_key())
        try:
            for signed, signer in pairwise(chain):
                signed.verify_directly_issued_by(signer)
        except (ValueError, TypeError, InvalidSignature):
            raise IdentityError(
                f"{self.certificate} is no chain: each certificate must be signed by the next"
            ) from None
        signers = [root for root in roots if _signed_by(chain[-1], root)]
        if not signers:
            raise IdentityError(f"{self.certificate} was not signed under the root in {self.trust}")
        proved = verified_name([*chain, signers[0]], self.name.domain)
        if proved != self.name:
            raise IdentityError(f"{self.certificate} is for {proved.uri}, but this service is {self.name.uri}")

    def _check_classic_pair(self) -> None:
        if self.classic_certificate is None and self.classic_key is None:
            return
        if self.classic_certificate is None or self.classic_key is None:
            raise IdentityError("classic_certificate and classic_key belong together: set both or neither")
        leaf = load_certificates(self.classic_certificate)[0]
        _belong_together(self.classic_certificate, leaf, self.classic_key, load_private(self.classic_key))
        named = certificate_name(leaf)
        if named != self.name:
            raise IdentityError(f"{self.classic_certificate} is for {named.uri}, but this service is {self.name.uri}")

    def _check_link_key(self) -> None:
        if self.link_key_path is not None:
            self.link_key()

    def _check_crl(self) -> None:
        if self.crl is not None and not self.crl.is_file():
            raise IdentityError(f"{self.crl} cannot be read: no such file")


def _belong_together(certificate_path: Path, leaf: x509.Certificate, key_path: Path, key: PrivateKey) -> None:
    def raw(public: object) -> bytes:
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]

    if raw(leaf.public_key()) != raw(key.public_key()):
        raise IdentityError(f"{certificate_path} does not belong to the private key {key_path}")


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
