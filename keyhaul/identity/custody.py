"""Authorities on disk: one folder each with its certificate, private key, revocation list and what it signed.

::

    DIR/NAME/certificate.pem   key.pem   crl.pem   issued/SERIAL.pem
    DIR/trust.pem              the operator's root, for every service's `trust`
    DIR/crl.pem                lists of the root and all intermediates, for every service's `crl`

NAME is ``root``, a role, or a purpose of `Classic`. A root belongs on a machine without a network: without its
``key.pem`` everything but making intermediates and re-signing the root's own list goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from keyhaul.identity import authority as making
from keyhaul.identity import revocation, secretfile
from keyhaul.identity.authority import Authority, Classic
from keyhaul.identity.errors import IdentityError
from keyhaul.identity.files import load_certificates
from keyhaul.identity.keys import load_private, private_pem
from keyhaul.identity.names import Role
from keyhaul.identity.revocation import common_name

ROOT = "root"

SERVICE_ROLES = (Role.UKMS, Role.AKMS, Role.CKMS, Role.AAA, Role.CONTROLLER, Role.VIEWER, Role.OPERATOR)
"""Roles that get an intermediate where nothing else is said."""

LISTS = {"crl.pem": "", "saes-crl.pem": Classic.SAES.value, "services-crl.pem": Classic.SERVICES.value}
"""What services call the files of revocation lists, and whose lists they are; empty: the operator's, all of them."""


class Custody:
    """A directory of authorities. Private keys are read when they are needed, and not kept."""

    def __init__(self, directory: Path, passphrase: bytes | None = None, *, durable: bool = True) -> None:
        self.directory = directory
        self._passphrase = passphrase
        self._durable = durable

    def names(self) -> list[str]:
        """The authorities that are there."""
        if not self.directory.is_dir():
            return []
        return sorted(path.parent.name for path in self.directory.glob("*/certificate.pem"))

    def certificate(self, name: str) -> x509.Certificate:
        """An authority's own certificate.

        Raises:
            IdentityError: it is not there, or unreadable.
        """
        path = self.directory / name / "certificate.pem"
        if not path.exists():
            raise IdentityError(
                f"{self.directory} has no authority {name!r} (it has: {', '.join(self.names()) or 'none'}). "
                "Make it with: keyhaul pki init"
            )
        return load_certificates(path)[0]

    def domain(self) -> str:
        """The domain that the operator's root is for."""
        for attribute in self.certificate(ROOT).subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME):
            return str(attribute.value)
        raise IdentityError(f"{self.directory / ROOT / 'certificate.pem'} names no domain: it was made elsewhere")

    def authority(self, name: str) -> Authority:
        """An authority with its private key, ready to sign.

        Raises:
            IdentityError: it is not there, or its key is absent, encrypted with another passphrase, or unsafe.
        """
        certificate = self.certificate(name)
        path = self.directory / name / "key.pem"
        if not path.exists():
            raise IdentityError(f"the private key of authority {name!r} is not here ({path}): sign where it is kept")
        key = load_private(path, self._passphrase)
        return Authority(certificate, key, (certificate,) if name in frozenset(Role) else ())

    def add(self, name: str, authority: Authority, now: datetime) -> None:
        """Put a new authority into the directory, with an empty revocation list.

        Raises:
            IdentityError: there is one of that name.
        """
        folder = self.directory / name
        if (folder / "certificate.pem").exists():
            raise IdentityError(f"{folder} holds an authority already")
        for path in (self.directory, folder, folder / "issued"):
            path.mkdir(mode=0o700, exist_ok=True)
        self._write(folder / "key.pem", private_pem(authority.key, self._passphrase))
        self._write(folder / "crl.pem", revocation.pem([revocation.sign_list(authority, None, now)]))
        self._write(folder / "certificate.pem", making.pem(authority.certificate))
        if name == ROOT:
            self._write(self.directory / "trust.pem", making.pem(authority.certificate))
        self.publish()

    def complete(self, domain: str, roles: Iterable[Role], now: datetime) -> list[str]:
        """Make what is missing of root, intermediates and P-256 authorities; return the names of those made.

        Raises:
            IdentityError: the root that is there is for another domain, or its key is not here.
        """
        before = self.names()
        if ROOT in before and self.domain() != domain:
            raise IdentityError(f"{self.directory} belongs to the domain {self.domain()}, not to {domain}")
        made = []
        if ROOT not in before:
            self.add(ROOT, making.make_root(domain, now), now)
            made.append(ROOT)
        for role in roles:
            if role.value not in before:
                self.add(role.value, making.make_intermediate(self.authority(ROOT), domain, role, now), now)
                made.append(role.value)
        for purpose in Classic:
            if purpose.value not in before:
                self.add(purpose.value, making.make_classic(domain, purpose, now), now)
                made.append(purpose.value)
        return made

    def record(self, name: str, certificate: x509.Certificate) -> None:
        """Keep a copy of what an authority signed, so that it can be revoked when its holder has lost it."""
        self._write(
            self.directory / name / "issued" / f"{certificate.serial_number:x}.pem",
            making.pem(certificate),
        )

    def issuer(self, certificate: x509.Certificate) -> str:
        """The name of the authority that signed a certificate.

        Raises:
            IdentityError: none of this directory did.
        """
        for name in self.names():
            candidate = self.certificate(name)
            if candidate.subject == certificate.issuer:
                try:
                    certificate.verify_directly_issued_by(candidate)
                except (ValueError, TypeError, InvalidSignature) as error:
                    raise _not_issued(certificate, self.directory) from error
                return name
        raise _not_issued(certificate, self.directory)

    def list_of(self, name: str) -> x509.CertificateRevocationList:
        """An authority's present revocation list."""
        return revocation.load_lists(self.directory / name / "crl.pem")[0]

    def sign_list(
        self,
        name: str,
        now: datetime,
        revoke: Iterable[tuple[x509.Certificate, x509.ReasonFlags]] = (),
        lifetime: timedelta = revocation.CRL_LIFETIME,
    ) -> x509.CertificateRevocationList:
        """Sign and keep an authority's next list, and renew the joint file of the operator's lists."""
        lists = revocation.sign_list(self.authority(name), self.list_of(name), now, revoke=revoke, lifetime=lifetime)
        self._write(self.directory / name / "crl.pem", revocation.pem([lists]))
        self.publish()
        return lists

    def publish(self) -> None:
        """Write the joint file of the lists of root and intermediates."""
        operator = [name for name in self.names() if name == ROOT or name in frozenset(Role)]
        self._write(self.directory / "crl.pem", revocation.pem(self.list_of(name) for name in operator))

    def install_lists(self, directory: Path) -> list[Path]:
        """Replace every file of revocation lists (`LISTS`) of services below a directory; return which.

        Raises:
            IdentityError: no such file is there.
        """
        replaced = self.lists_below(directory)
        for path in replaced:
            self._write(path, (self.directory / LISTS[path.name] / "crl.pem").read_bytes())
        return replaced

    def lists_below(self, directory: Path) -> list[Path]:
        """The files that `install_lists` replaces.

        Raises:
            IdentityError: there is none.
        """
        own = self.directory.resolve()
        found = [
            path
            for name in LISTS
            for path in sorted(directory.glob(f"**/{name}"))
            if not path.resolve().is_relative_to(own)
        ]
        if not found:
            raise IdentityError(f"no service below {directory} has a file {' or '.join(LISTS)}")
        return found

    def _write(self, path: Path, content: bytes) -> None:
        secretfile.write(path, content, durable=self._durable)


def _not_issued(certificate: x509.Certificate, directory: Path) -> IdentityError:
    return IdentityError(f"{common_name(certificate.subject)} was not signed by an authority in {directory}")
