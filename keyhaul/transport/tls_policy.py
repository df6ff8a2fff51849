"""What a handshake must come to, and OpenSSL contexts that see to it.

The lists of groups and signature algorithms are set through functions that pyOpenSSL has but does not publish; the
self-test (`tls_selftest`) shows at start that they had their effect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from OpenSSL import SSL, crypto
from OpenSSL._util import ffi, lib

from keyhaul.runtime.interface import StartError

SERVICE_GROUP = "X25519MLKEM768"
SERVICE_SIGNATURE = "mldsa65"
H2 = "h2"
REVERSE = "keyhaul-reverse"
"""ALPN of a connection on which the TLS server is the HTTP/2 client."""

MinimumTls = Literal["1.2", "1.3"]

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


class TlsUnusable(StartError):
    """TLS cannot be set up as the policy demands, with the file concerned and what to do."""


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """What a handshake must come to."""

    minimum: MinimumTls
    groups: str
    signatures: str | None
    """Acceptable signature algorithms; None: OpenSSL's default list."""
    post_quantum: bool
    """Whether certificates, peer's and own, must hold ML-DSA-65 keys, and the group must be X25519MLKEM768."""
    protocols: tuple[str, ...]
    """ALPN: what a server accepts, or a client offers."""
    protocol_required: bool


SERVICE = TlsPolicy("1.3", SERVICE_GROUP, SERVICE_SIGNATURE, True, (H2,), True)
"""Between services."""

CLASSIC = TlsPolicy("1.3", f"{SERVICE_GROUP}:X25519:P-256", None, False, ("http/1.1",), False)
"""Towards encryptors and QKD modules."""


def new_context(policy: TlsPolicy, *, server: bool) -> SSL.Context:
    """Return an OpenSSL context with the policy in force and neither certificates nor trust in it.

    Raises:
        TlsUnusable: this OpenSSL does not know an algorithm that the policy demands.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD if server else SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(_VERSIONS[policy.minimum])
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_tls13_ciphersuites(b"TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256")
    if policy.minimum == "1.2":
        context.set_cipher_list(b"ECDHE+AESGCM:ECDHE+CHACHA20")
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _note_refusal)
    raw = context._context
    known = lib.SSL_CTX_set1_curves_list(raw, policy.groups.encode()) == 1
    if policy.signatures is not None:
        known = known and lib.SSL_CTX_set1_sigalgs_list(raw, policy.signatures.encode()) == 1
    if not known:
        raise TlsUnusable(
            f"{SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode()} lacks {policy.groups} or {policy.signatures}: "
            "install the pinned versions of cryptography and pyOpenSSL"
        )
    if server:
        context.set_alpn_select_callback(_selector(policy))
    else:
        context.set_alpn_protos([protocol.encode() for protocol in policy.protocols])
    return context


def use_key(context: SSL.Context, pem: bytes) -> None:
    """Set a context's private key, of a kind that pyOpenSSL itself need not know.

    Raises:
        OpenSSL.crypto.Error: the key cannot be read.
        OpenSSL.SSL.Error: it does not belong to the certificate set before.
    """
    key = crypto.load_privatekey(crypto.FILETYPE_PEM, pem, b"")
    lib.SSL_CTX_use_PrivateKey(context._context, key._pkey)
    context.check_privatekey()


def _selector(policy: TlsPolicy) -> Callable[[SSL.Connection, list[bytes]], Any]:
    accepted = [protocol.encode() for protocol in policy.protocols]

    def select(_connection: SSL.Connection, offered: list[bytes]) -> Any:
        for protocol in offered:
            if protocol in accepted:
                return protocol
        return SSL.NO_OVERLAPPING_PROTOCOLS

    return select


def _note_refusal(connection: SSL.Connection, _certificate: Any, error: int, depth: int, acceptable: int) -> bool:
    if not acceptable:
        reason = ffi.string(lib.X509_verify_cert_error_string(error)).decode()
        connection.set_app_data(f"{reason} (depth {depth})")
    return bool(acceptable)
