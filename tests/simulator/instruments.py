"""Where the oracle looks into a run: what is taken from pads, encrypted, sealed and opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from keyhaul.link.pads import SenderPads
from keyhaul.link.protection import aes_gcm
from keyhaul.link.receiver import ReceiverDirection
from keyhaul.link.sender import SenderDirection
from services.akms import transferring
from tests.simulator.oracle import Oracle


@contextmanager
def watched(oracle: Oracle) -> Iterator[None]:
    """Let the oracle see what the services do, whatever version of them runs."""
    honest_cipher: Any = vars(aes_gcm)["AESGCM"]
    protect: Any = vars(transferring)["protect"]
    take, seal, accept = SenderPads.take, SenderDirection.seal, ReceiverDirection.open

    class Cipher:
        """AES-256-GCM that tells its keys and nonces."""

        def __init__(self, key: bytes) -> None:
            self._key = bytes(key)
            self._real = honest_cipher(key)

        def encrypt(self, nonce: bytes, data: bytes, associated: bytes | None) -> bytes:
            oracle.nonce_used(self._key, nonce)
            encrypted: bytes = self._real.encrypt(nonce, data, associated)
            return encrypted

        def decrypt(self, nonce: bytes, data: bytes, associated: bytes | None) -> bytes:
            plain: bytes = self._real.decrypt(nonce, data, associated)
            return plain

    def watched_take(self: SenderPads, count: int, keep: int = 0) -> tuple[int, bytes]:
        offset, bits = take(self, count, keep)
        oracle.pad_used(bits)
        return offset, bits

    def watched_seal(self: SenderDirection, *arguments: Any, **options: Any) -> Any:
        sealed, flight = seal(self, *arguments, **options)
        oracle.sealed(sealed.header, sealed.clear, sealed.secret, sealed.tag)
        return sealed, flight

    def watched_open(self: ReceiverDirection, sealed: Any, *arguments: Any, **options: Any) -> Any:
        result = accept(self, sealed, *arguments, **options)
        oracle.opened(sealed.header, sealed.clear, sealed.secret, sealed.tag)
        return result

    def watched_protect(context: Any, bits: bytes, cn: bytes, secret: bytes) -> Any:
        oracle.cn_used(cn)
        return protect(context, bits, cn, secret)

    with ExitStack() as patches:
        for target, attribute, value in (
            (SenderPads, "take", watched_take),
            (SenderDirection, "seal", watched_seal),
            (ReceiverDirection, "open", watched_open),
            (transferring, "protect", watched_protect),
            (aes_gcm, "AESGCM", Cipher),
        ):
            patches.enter_context(patch.object(target, attribute, value))
        yield
