"""Whether the OpenSSL at hand does what services demand of one another, tried once per process by a handshake."""

from __future__ import annotations

import datetime
import functools

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

from keyhaul.transport.tls_policy import (
    H2,
    SERVICE_GROUP,
    SERVICE_SIGNATURE,
    TlsPolicy,
    TlsUnusable,
    new_context,
    use_key,
)

_ROUNDS = 8


@functools.cache
def self_test() -> None:
    """Shake hands in memory under the services' policy.

    Raises:
        TlsUnusable: it did not come to X25519MLKEM768 and ML-DSA-65; services must not start.
    """
    policy = TlsPolicy("1.3", SERVICE_GROUP, SERVICE_SIGNATURE, True, (H2,), True)
    key, certificate = _throwaway()
    ends = []
    for server in (True, False):
        context = new_context(policy, server=server)
        context.use_certificate(certificate)
        use_key(context, key)
        store = context.get_cert_store()
        if store is None:
            raise TlsUnusable("OpenSSL gave no certificate store")
        store.add_cert(crypto.X509.from_cryptography(certificate))
        ends.append(SSL.Connection(context, None))
    server_end, client_end = ends
    server_end.set_accept_state()
    client_end.set_connect_state()
    try:
        for _ in range(_ROUNDS):
            if _step(client_end, server_end) & _step(server_end, client_end):
                break
    except SSL.Error as error:
        raise TlsUnusable(_advice(f"the handshake failed ({error})")) from None
    for end in ends:
        version, group = end.get_protocol_version_name(), end.get_group_name()
        if version != "TLSv1.3" or group != SERVICE_GROUP:
            raise TlsUnusable(_advice(f"the handshake came to {version} with {group}"))


def _step(end: SSL.Connection, peer: SSL.Connection) -> bool:
    finished = True
    try:
        end.do_handshake()
    except SSL.WantReadError:
        finished = False
    try:
        while True:
            peer.bio_write(end.bio_read(65_536))
    except SSL.WantReadError:
        return finished


def _throwaway() -> tuple[bytes, x509.Certificate]:
    key = MLDSA65PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self-test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, None)
    )
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), certificate


def _advice(what: str) -> str:
    version = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode()
    return (
        f"{version} cannot do TLS 1.3 with {SERVICE_GROUP} and ML-DSA-65: {what}; "
        "install the pinned versions of cryptography and pyOpenSSL"
    )
