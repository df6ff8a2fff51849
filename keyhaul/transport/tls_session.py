"""One TLS connection between memory buffers, as asyncio and uvloop drive it, on the OpenSSL of pyOpenSSL.

The event loops expect what `ssl.SSLContext.wrap_bio` returns: an object that reads ciphertext from one
`ssl.MemoryBIO` and writes to another. Python's own `ssl` links an OpenSSL without ML-KEM and ML-DSA.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

_RECORD = 16_384
"""The most plain bytes of one TLS record (RFC 8446 section 5.1)."""

_CIPHERTEXT = 65_536

Check = Callable[["TlsSession"], None]
"""Looks at a finished handshake; raises `ssl.SSLError` to refuse the connection."""

Refused = Callable[[ssl.SSLError], None]
"""Hears why a peer is refused."""

_NO_REFUSAL = (ssl.SSLWantReadError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class TlsSession:
    """The handshake, encryption and decryption of one connection."""

    def __init__(
        self,
        connection: SSL.Connection,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        *,
        context: ssl.SSLContext,
        server_side: bool,
        server_hostname: str | None,
        check: Check,
        refused: Refused | None = None,
    ) -> None:
        """Prepare a handshake.

        Args:
            connection: OpenSSL's side of it.
            incoming: ciphertext from the peer.
            outgoing: ciphertext for the peer.
            context: what `wrap_bio` was called on.
            server_side: whether the peer began.
            server_hostname: for the server's name that a client sends.
            check: looks at the outcome.
            refused: told once why a peer is refused; the peer is then sent an alert before the connection ends. Event
                loops drop what is still to be written when a handshake fails, so that without it there is no alert.
        """
        self.context = context
        self.server_side = server_side
        self.server_hostname = server_hostname
        self._connection = connection
        self._incoming = incoming
        self._outgoing = outgoing
        self._check = check
        self._refused = refused
        self._failure: ssl.SSLError | None = None
        self._unread = 0
        self._chain: list[x509.Certificate] | None = None
        if server_side:
            connection.set_accept_state()
        else:
            connection.set_connect_state()

    def do_handshake(self) -> None:
        """Go on with the handshake, then look whether its outcome is acceptable.

        Raises:
            ssl.SSLWantReadError: the peer has to answer first.
            ssl.SSLCertVerificationError: the peer's certificate was refused.
            ssl.SSLError: anything else that ends the connection.
        """
        if self._failure is not None:
            raise self._failure
        self._feed()
        try:
            self._connection.do_handshake()
        except SSL.Error as error:
            failure = self._translated(error)
            if self._refused is None or isinstance(failure, _NO_REFUSAL):
                raise failure from None
            self._failure = failure
            self._refused(failure)
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the peer has to take the alert first") from None
        finally:
            self._flush()
        self._check(self)

    def read(self, size: int = _RECORD, buffer: Any = None) -> Any:
        """Decrypt up to one record: returns bytes, or their number with `buffer`; empty or 0 at the peer's close.

        Raises:
            ssl.SSLWantReadError: no whole record is there.
            ssl.SSLError: the connection is broken.
        """
        if self._incoming.pending:
            self._feed()
        try:
            plain = self._connection.recv(size if size < _RECORD else _RECORD)
        except SSL.WantReadError:
            self._unread = 0
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "more ciphertext is needed") from None
        except SSL.ZeroReturnError:
            return b"" if buffer is None else 0
        except SSL.Error as error:
            self._flush()
            raise self._translated(error) from None
        if buffer is None:
            return plain
        count = len(plain)
        buffer[:count] = plain
        return count

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Encrypt all of `data` into the outgoing buffer; returns its length.

        Raises:
            ssl.SSLWantReadError: the peer has to be read first and nothing was taken.
            ssl.SSLError: the connection is broken.
        """
        size = len(data)
        if not size:
            return 0
        done = 0
        try:
            if size <= _RECORD:
                done = self._connection.send(data)
            else:
                view = memoryview(data)
                while done < size:
                    done += self._connection.send(view[done : done + _RECORD])
        except SSL.Error as error:
            if not done:
                raise self._translated(error) from None
        finally:
            self._flush()
        return done

    def unwrap(self) -> None:
        """Send our close_notify, then wait for the peer's.

        Raises:
            ssl.SSLWantReadError: the peer's is still to come.
            ssl.SSLError: the connection is broken.
        """
        self._feed()
        try:
            finished = self._connection.shutdown()
        except SSL.ZeroReturnError:
            finished = True
        except SSL.Error as error:
            raise self._translated(error) from None
        finally:
            self._flush()
        if not finished:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the peer has not closed yet")

    def pending(self) -> int:
        """How much may be read without further input: plain bytes, else an estimate from unread ciphertext."""
        return self._connection.pending() or self._unread

    def selected_alpn_protocol(self) -> str | None:
        """The application protocol that both agreed on (RFC 7301)."""
        return self._connection.get_alpn_proto_negotiated().decode("ascii", "replace") or None

    def cipher(self) -> tuple[str, str, int] | None:
        """Cipher suite, protocol version, secret bits; None before the handshake."""
        name = self._connection.get_cipher_name()
        if name is None:
            return None
        return name, self._connection.get_protocol_version_name(), self._connection.get_cipher_bits() or 0

    def version(self) -> str:
        """The protocol version, e.g. ``TLSv1.3``."""
        return self._connection.get_protocol_version_name()

    def group(self) -> str | None:
        """The key agreement's group, e.g. ``X25519MLKEM768``; None before the handshake."""
        return self._connection.get_group_name()

    def compression(self) -> None:
        """TLS compression is never used."""
        return

    def getpeercert(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:
        """The peer's certificate: DER, or its common names in the form of `ssl.SSLSocket.getpeercert`."""
        try:
            leaf = self.verified_chain()[0]
        except ssl.SSLError:
            return None
        if binary_form:
            return leaf.public_bytes(Encoding.DER)
        names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return {"subject": tuple((("commonName", name.value),) for name in names)}

    def verified_chain(self) -> list[x509.Certificate]:
        """The peer's chain as OpenSSL validated it, leaf first.

        Raises:
            ssl.SSLError: the peer proved no certificate.
        """
        if self._chain is None:
            self._chain = self._connection.get_verified_chain(as_cryptography=True)
            if not self._chain:
                raise ssl.SSLError("the peer proved no certificate")
        return self._chain

    def _feed(self) -> None:
        data = self._incoming.read()
        if data:
            self._connection.bio_write(data)
            self._unread += len(data)

    def _flush(self) -> None:
        try:
            while True:
                data = self._connection.bio_read(_CIPHERTEXT)
                self._outgoing.write(data)
                if len(data) < _CIPHERTEXT:
                    return
        except SSL.WantReadError:
            return

    def _translated(self, error: SSL.Error) -> ssl.SSLError:
        if isinstance(error, SSL.WantReadError | SSL.WantWriteError):
            return ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "more ciphertext is needed")
        if isinstance(error, SSL.ZeroReturnError):
            return ssl.SSLZeroReturnError(ssl.SSL_ERROR_ZERO_RETURN, "the peer closed the connection")
        if isinstance(error, SSL.SysCallError):
            return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the peer closed the connection without saying so")
        refused = self._connection.get_app_data()
        if isinstance(refused, str):
            return ssl.SSLCertVerificationError(1, f"certificate verification failed: {refused}")
        reasons = [entry[2] for entry in error.args[0] if len(entry) == 3] if error.args else []
        return ssl.SSLError(ssl.SSL_ERROR_SSL, "; ".join(reasons) or "TLS failed")
