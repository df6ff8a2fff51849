"""TLS for gRPC: mutual, TLS 1.3 only, P-256 certificates.

gRPC brings its own TLS, which knows no ML-DSA certificates and cannot be told groups or versions. By default it prefers
X25519MLKEM768. TLS 1.2 is put out of reach by leaving it a single cipher suite that no P-256 certificate can serve; and
whatever was negotiated is looked at again when the first RPC comes (`peers.protected`). The client's side of gRPC does
not show its session: the target tells which group its own end of the session has (`GROUP_KEY`), TLS 1.3
having authenticated that both ends took part in the same handshake (RFC 8446 section 4.4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from keyhaul.agents.gnmi import TLS_1_2_REFUSED
from keyhaul.transport.tls import TlsFiles
from keyhaul.transport.tls_policy import TlsUnusable

log = structlog.get_logger(__name__)

GROUP_KEY: Final = "keyhaul-tls-group"
"""Initial metadata of every answer: the key agreement of the connection as the target's end has it."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    certificate: bytes
    key: bytes
    trust: bytes


def server_credentials(files: TlsFiles, begun: Callable[[], None]) -> grpc.ServerCredentials:
    """Return what a target listens with; files that change are used from the next handshake on.

    Args:
        files: P-256 certificate, key, and the authorities of peers' certificates.
        begun: is told of each handshake before it begins, in a thread of gRPC.

    Raises:
        TlsUnusable: the files cannot be used.
    """
    _refuse_tls_1_2()
    return grpc.dynamic_ssl_server_credentials(
        _configuration(_load(files)),
        _Renewing(files, begun),  # type: ignore[arg-type]  # None: nothing new, says gRPC's documentation
        require_client_authentication=True,
    )


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Return what a client dials with, from the files as they are now.

    Raises:
        TlsUnusable: the files cannot be used.
    """
    _refuse_tls_1_2()
    loaded = _load(files)
    return grpc.ssl_channel_credentials(loaded.trust, loaded.key, loaded.certificate)


class _Renewing:
    """Gives gRPC new certificates when the files have changed; called in a thread of gRPC before each handshake."""

    def __init__(self, files: TlsFiles, begun: Callable[[], None]) -> None:
        self._files = files
        self._begun = begun
        self._stamp = files.stamp()

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        self._begun()
        stamp = self._files.stamp()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            loaded = _load(self._files)
        except TlsUnusable as error:
            log.error("gnmi tls files changed but cannot be used; the former stay", error=str(error))
            return None
        log.info("gnmi tls files renewed", certificate=str(self._files.certificate))
        return _configuration(loaded)


def _configuration(loaded: _Loaded) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(loaded.key, loaded.certificate)], loaded.trust)


def _load(files: TlsFiles) -> _Loaded:
    try:
        loaded = _Loaded(files.certificate.read_bytes(), files.key.read_bytes(), files.trust.read_bytes())
        leaf = x509.load_pem_x509_certificates(loaded.certificate)[0]
        x509.load_pem_x509_certificates(loaded.trust)
        key = load_pem_private_key(loaded.key, password=None)
    except OSError as error:
        raise TlsUnusable(f"{error.filename} cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError):
        raise TlsUnusable(
            f"{files.certificate}, {files.key} or {files.trust} is no PEM of certificate, private key and authorities"
        ) from None
    public = leaf.public_key()
    if not isinstance(public, EllipticCurvePublicKey) or not isinstance(public.curve, SECP256R1):
        raise TlsUnusable(f"{files.certificate} is not for a P-256 key: gRPC knows no others that serve here")
    if not isinstance(key, EllipticCurvePrivateKey) or _raw(key.public_key()) != _raw(public):
        raise TlsUnusable(f"{files.key} is not the private key of {files.certificate}")
    return loaded


def _raw(public: EllipticCurvePublicKey) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _refuse_tls_1_2() -> None:
    if not TLS_1_2_REFUSED:
        raise TlsUnusable("gRPC was imported before keyhaul.agents.gnmi and would accept TLS 1.2: import it later")
