"""TLS contexts for asyncio, uvloop and aiohttp, whose policy no configuration can weaken.

Between services: TLS 1.3 only (RFC 8446), key agreement X25519MLKEM768 only (FIPS 203 with X25519), signatures
ML-DSA-65 only (FIPS 204), certificates of both ends required and validated up to the operator's root. Towards
encryptors and QKD modules ("classic"): the same demands on certificates, P-256 among them, and X25519MLKEM768 for
whoever knows it. Nothing is resumed: every connection authenticates anew.

Changed files are picked up at the next handshake; if they are broken, the former ones stay in use.
"""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, Protocol, Self

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

from keyhaul.identity.files import ServiceIdentity
from keyhaul.transport.tls_policy import (
    CLASSIC,
    H2,
    REVERSE,
    SERVICE,
    SERVICE_GROUP,
    MinimumTls,
    TlsPolicy,
    TlsUnusable,
    new_context,
    use_key,
)
from keyhaul.transport.tls_selftest import self_test
from keyhaul.transport.tls_session import TlsSession

log = structlog.get_logger(__name__)

_CRL_BEGIN = b"-----BEGIN X509 CRL-----"
_CRL_END = b"-----END X509 CRL-----"
_REFUSALS_APART = 1.0
"""Seconds between two lines of the log about refused clients."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What a context is made from, PEM all of it."""

    certificate: Path
    """The leaf, then its intermediates."""
    key: Path
    trust: Path
    """The authorities that peers' certificates must lead up to."""
    crl: Path | None = None
    """A current revocation list of every authority in a peer's chain, the root's included."""

    def stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes when any of the files does."""
        return tuple(_stamp(path) for path in (self.certificate, self.key, self.trust, self.crl) if path is not None)


class TlsContext(ssl.SSLContext):
    """Makes connections for an event loop; takes the place of `ssl.SSLContext` as `ssl=` or `ssl_context=`."""

    files: TlsFiles
    policy: TlsPolicy

    def __new__(cls, files: TlsFiles, policy: TlsPolicy, *, server: bool, common_name: str | None = None) -> Self:
        """Make the Python object; `__init__` loads the files."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, files: TlsFiles, policy: TlsPolicy, *, server: bool, common_name: str | None = None) -> None:
        """Load the files.

        Args:
            files: certificate, key and trust.
            policy: what a handshake must come to.
            server: whether connections are accepted rather than made.
            common_name: what the peer's certificate must have as its common name; None: the caller looks.

        Raises:
            TlsUnusable: a file cannot be read or used.
        """
        self.files = files
        self.policy = policy
        self.server = server
        self.common_name = common_name
        self._refused = 0
        self._refusal_told = -_REFUSALS_APART
        self._stamp = files.stamp()
        self._context = _build(files, policy, server=server)

    def offering(self, protocol: str) -> TlsContext:
        """Return a like context of a client that offers another application protocol."""
        policy = replace(self.policy, protocols=(protocol,))
        return TlsContext(self.files, policy, server=self.server, common_name=self.common_name)

    def current(self) -> SSL.Context:
        """Return the OpenSSL context for the files as they are now."""
        stamp = self.files.stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = _build(self.files, self.policy, server=self.server)
            except TlsUnusable as error:
                log.error("tls files changed but cannot be used; the former stay", error=str(error))
            else:
                log.info("tls files renewed", certificate=str(self.files.certificate))
        return self._context

    def wrap_bio(  # type: ignore[override]
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> TlsSession:
        """Begin a connection between two buffers; called by the event loop.

        Raises:
            ValueError: a server's context was used for a client, or the reverse.
        """
        if server_side != self.server:
            raise ValueError(f"this TLS context is for a {'server' if self.server else 'client'}")
        connection = SSL.Connection(self.current(), None)
        host = server_hostname.decode() if isinstance(server_hostname, bytes) else server_hostname
        if host and not self.server and not self.policy.post_quantum and not _is_address(host):
            connection.set_tlsext_host_name(host.encode("idna"))
        return TlsSession(
            connection,
            incoming,
            outgoing,
            context=self,
            server_side=server_side,
            server_hostname=host,
            check=self._check,
            refused=self._note_refusal if self.server and not self.policy.post_quantum else None,
        )

    def wrap_socket(self, *_arguments: Any, **_keywords: Any) -> NoReturn:
        """Blocking sockets are not supported."""
        raise NotImplementedError("this TLS context works with event loops only")

    def _note_refusal(self, error: ssl.SSLError) -> None:
        self._refused += 1
        now = time.monotonic()
        if now - self._refusal_told >= _REFUSALS_APART:
            log.warning("a client's handshake was refused", reason=str(error), refused=self._refused)
            self._refusal_told, self._refused = now, 0

    def _check(self, session: TlsSession) -> None:
        chain = session.verified_chain()
        protocol = session.selected_alpn_protocol()
        if self.policy.post_quantum:
            if session.version() != "TLSv1.3" or session.group() != SERVICE_GROUP:
                raise ssl.SSLError(f"{session.version()} with {session.group()} is not acceptable between services")
            if not all(isinstance(certificate.public_key(), MLDSA65PublicKey) for certificate in chain):
                raise ssl.SSLCertVerificationError(1, "the peer's certificates are not all ML-DSA-65")
        if self.policy.protocol_required and protocol not in self.policy.protocols:
            raise ssl.SSLError("the two ends share no application protocol")
        if not self.policy.post_quantum:
            name = _common_name(chain[0])
            if name is None:
                raise ssl.SSLCertVerificationError(1, "the peer's certificate has no single common name")
            if self.common_name is not None and name != self.common_name:
                raise ssl.SSLCertVerificationError(1, f"the peer's certificate is not for {self.common_name}")

    def refusal(self, chain: list[x509.Certificate]) -> str | None:
        """Say why a chain that was accepted once is not acceptable any more; None if it still is.

        Args:
            chain: as it was validated in the handshake, leaf first.
        """
        store = self.current().get_cert_store()
        assert store is not None
        leaf, *others = (crypto.X509.from_cryptography(certificate) for certificate in chain)
        try:
            crypto.X509StoreContext(store, leaf, others).verify_certificate()
        except crypto.X509StoreContextError as error:
            return str(error)
        return None


def service_server(identity: ServiceIdentity) -> TlsContext:
    """Return the context with which a service accepts other services.

    Raises:
        TlsUnusable: this OpenSSL lacks an algorithm, or the identity's files cannot be used.
    """
    return _service(identity, replace(SERVICE, protocols=(H2, REVERSE)), server=True)


def service_client(identity: ServiceIdentity) -> TlsContext:
    """Return the context with which a service dials other services; the caller checks the peer's name.

    Raises:
        TlsUnusable: as `service_server`.
    """
    return _service(identity, SERVICE, server=False)


def classic_server(
    certificate: Path, key: Path, trust: Path, crl: Path | None = None, minimum_tls: MinimumTls = "1.3"
) -> TlsContext:
    """Return the context with which encryptors or KMSs are accepted; they must show a certificate under `trust`.

    Args:
        certificate: PEM chain, leaf first.
        key: PEM.
        trust: PEM of the authorities of the clients' certificates.
        crl: PEM: current revocation lists of those authorities.
        minimum_tls: `1.2` for old encryptors.

    Raises:
        TlsUnusable: a file cannot be used.
    """
    files = TlsFiles(Path(certificate), Path(key), Path(trust), None if crl is None else Path(crl))
    return TlsContext(files, replace(CLASSIC, minimum=minimum_tls), server=True)


def classic_client(
    certificate: Path, key: Path, trust: Path, crl: Path | None = None, *, common_name: str | None = None
) -> TlsContext:
    """Return the context with which a QKD module or a KME is called; its certificate must lead up to `trust`.

    Args:
        certificate: PEM chain, leaf first.
        key: PEM.
        trust: PEM of the authorities of the server's certificate.
        crl: PEM: current revocation lists of those authorities.
        common_name: which common name the server must prove; None: the caller looks with `peer_common_name`.

    Raises:
        TlsUnusable: a file cannot be used.
    """
    files = TlsFiles(Path(certificate), Path(key), Path(trust), None if crl is None else Path(crl))
    return TlsContext(files, replace(CLASSIC, minimum="1.2"), server=False, common_name=common_name)


class HasExtraInfo(Protocol):
    """A transport of asyncio, as far as it matters here."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the event loop knows about the connection."""
        ...


def session_of(transport: HasExtraInfo) -> TlsSession:
    """Return the TLS session under a transport.

    Raises:
        ssl.SSLError: the connection is not one of this module's.
    """
    session = transport.get_extra_info("ssl_object")
    if not isinstance(session, TlsSession):
        raise ssl.SSLError("the connection is not protected by TLS")
    return session


def peer_common_name(transport: HasExtraInfo) -> str:
    """Return the common name in the verified certificate of a connection's peer.

    Raises:
        ssl.SSLError: the connection is not one of this module's classic ones, of which each peer has such a name.
    """
    name = _common_name(session_of(transport).verified_chain()[0])
    if name is None:
        raise ssl.SSLError("the peer's certificate has no single common name")
    return name


def _service(identity: ServiceIdentity, policy: TlsPolicy, *, server: bool) -> TlsContext:
    self_test()
    return TlsContext(TlsFiles(identity.certificate, identity.key, identity.trust, identity.crl), policy, server=server)


def _build(files: TlsFiles, policy: TlsPolicy, *, server: bool) -> SSL.Context:
    chain = _certificates(files.certificate)
    roots = _certificates(files.trust)
    context = new_context(policy, server=server)
    if policy.post_quantum:
        for path, certificates in ((files.certificate, chain), (files.trust, roots)):
            if not all(isinstance(certificate.public_key(), MLDSA65PublicKey) for certificate in certificates):
                raise TlsUnusable(
                    f"{path} has a certificate whose key is not ML-DSA-65: only those serve between services"
                )
    try:
        context.use_certificate(chain[0])
        for intermediate in chain[1:]:
            context.add_extra_chain_cert(intermediate)
        use_key(context, files.key.read_bytes())
    except (SSL.Error, crypto.Error, OSError):
        raise TlsUnusable(
            f"{files.key} cannot be used as the private key of {files.certificate}: "
            "check that it exists, is readable PEM and belongs to the certificate"
        ) from None
    store = context.get_cert_store()
    if store is None:
        raise TlsUnusable("OpenSSL gave no certificate store")
    for root in roots:
        store.add_cert(crypto.X509.from_cryptography(root))
    if files.crl is not None:
        for revocation_list in _revocation_lists(files.crl):
            store.add_crl(revocation_list)
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
    return context


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise TlsUnusable(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise TlsUnusable(f"{path} holds no certificate in PEM") from None


def _revocation_lists(path: Path) -> list[x509.CertificateRevocationList]:
    try:
        content = path.read_bytes()
        lists = [
            x509.load_pem_x509_crl(_CRL_BEGIN + block.partition(_CRL_END)[0] + _CRL_END + b"\n")
            for block in content.split(_CRL_BEGIN)[1:]
        ]
    except OSError as error:
        raise TlsUnusable(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise TlsUnusable(f"{path} holds a broken revocation list") from None
    if not lists:
        raise TlsUnusable(f"{path} holds no revocation list in PEM")
    return lists


def _common_name(certificate: x509.Certificate) -> str | None:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        return None
    value = names[0].value
    return value if isinstance(value, str) else None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
