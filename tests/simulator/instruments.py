"""Where the oracle looks into a run: what is taken from pads, encrypted, sealed and opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from controller import installing, telemetry
from controller.admission.reservations import Reservations
from controller.steering.steering import Steering
from keyhaul.link.pads import SenderPads
from keyhaul.link.protection import aes_gcm
from keyhaul.link.receiver import ReceiverDirection
from keyhaul.link.sender import SenderDirection
from services.akms import transferring
from services.ckms.installed import Installed
from tests.simulator.gnmi import SimulatedClient
from tests.simulator.oracle import Oracle
from tests.simulator.steering_rules import SteeringRules


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
        oracle.exposures.protected(context.batch, {part.batch for part in context.cn})
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


@contextmanager
def steered(rules: SteeringRules) -> Iterator[None]:
    """Let the rules of steering see what controllers say, and what nodes do about it, whatever version of them runs."""
    honest_sign: Any = vars(installing)["sign"]
    consider, take, restore = Installed.consider, Installed.take, Installed.restore
    effects, reserve = Steering.effects, Reservations.reserve

    def watched_sign(*arguments: Any) -> Any:
        signed = honest_sign(*arguments)
        for one in signed:
            rules.signed(one)
        return signed

    def watched_effects(self: Steering) -> Any:
        decided = effects(self)
        rules.decided(self, decided)
        return decided

    def watched_reserve(self: Reservations, view: Any, lease: Any) -> None:
        reserve(self, view, lease)
        rules.reserved(self, view, lease)

    def watched_consider(self: Installed, offered: Any, now: float) -> Any:
        offered = list(offered)
        change = consider(self, offered, now)
        rules.considered(change, offered)
        return change

    def watched_take(self: Installed, change: Any) -> None:
        take(self, change)
        rules.taken(self, change)

    def watched_restore(self: Installed, kept: Any, now: float) -> Any:
        restored = restore(self, kept, now)
        rules.restored(self, kept)
        return restored

    with ExitStack() as patches:
        for target, attribute, value in (
            (installing, "sign", watched_sign),
            (Steering, "effects", watched_effects),
            (Reservations, "reserve", watched_reserve),
            (Installed, "consider", watched_consider),
            (Installed, "take", watched_take),
            (Installed, "restore", watched_restore),
            (telemetry, "Client", SimulatedClient),
        ):
            patches.enter_context(patch.object(target, attribute, value))
        yield
