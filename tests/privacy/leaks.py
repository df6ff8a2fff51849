"""Services that leak, one way each: what the rules must find. A launcher installs them before it forks services."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from tests.privacy import rules


@dataclass(frozen=True, slots=True)
class Leak:
    """One way to leak, and what has to be found then."""

    install: Callable[[], None]
    rule: str
    role: str
    kind: str


def _ckms_logs_bits() -> None:
    import structlog

    from services.ckms.relay import Relay

    log, forward = structlog.get_logger("leak"), Relay.forward

    def leaking(self: Relay, previous: str, request: Any, bits: bytes, *rest: Any) -> Any:
        log.info("relayed", bits=str(list(bits[:24])))
        return forward(self, previous, request, bits, *rest)

    Relay.forward = leaking  # type: ignore[method-assign, assignment]


def _akms_names_the_user() -> None:
    from keyhaul.transport import codec
    from keyhaul.transport.messages.relay import Submit

    encode = codec.encode

    def leaking(message: Any) -> bytes:
        body = encode(message)
        if isinstance(message, Submit):
            return body[:-1] + b',"billing":"' + base64.b64encode(b"for kestrel-w, please") + b'"}'
        return body

    codec.encode = leaking


def _ukms_tells_the_path() -> None:
    from services.ukms import terms
    from services.ukms.etsi014 import Refusal

    terms.slave_refused = lambda: Refusal(400, "no path over CKMS-droitwich leads there")  # type: ignore[attr-defined]


def _ckms_health_shows_bits() -> None:
    from keyhaul.runtime.around import ServiceRuntime
    from services.ckms.relay import Relay

    state, submit, latest = ServiceRuntime.state, Relay.submit, [b""]

    def remembering(self: Relay, request: Any, ready: Any, now: float) -> Any:
        latest[0] = request.bits
        return submit(self, request, ready, now)

    def leaking(self: ServiceRuntime) -> Any:
        ready, facts = state(self)
        return ready, {**facts, "latest": base64.urlsafe_b64encode(latest[0][1:60]).decode()}

    Relay.submit = remembering  # type: ignore[method-assign]
    ServiceRuntime.state = leaking  # type: ignore[method-assign]


def _fields_are_not_sealed() -> None:
    from keyhaul.store.field_cipher import StoreFieldCipher

    StoreFieldCipher.seal = lambda self, plain, context: plain  # type: ignore[method-assign]
    StoreFieldCipher.open = lambda self, sealed, context: sealed  # type: ignore[method-assign]


def _keys_beside_the_store() -> None:
    from services.ukms import kme

    container = kme._container

    def leaking(keys: Any) -> Any:
        made = container(keys)
        with open(_file("issued.dump"), "ab") as file:
            file.write(b"".join(key.key for key in made.keys))
        return made

    kme._container = leaking


def _keys_to_the_akms() -> None:
    from keyhaul.transport import codec
    from keyhaul.transport.messages.link import Sealed
    from services.ukms import kme

    container, encode, latest = kme._container, codec.encode, [b""]

    def remembering(keys: Any) -> Any:
        made = container(keys)
        latest[0] = made.keys[0].key
        return made

    def leaking(message: Any) -> bytes:
        body = encode(message)
        if isinstance(message, Sealed):
            return body[:-1] + b',"note":' + msgspec.json.encode(latest[0].hex()) + b"}"
        return body

    kme._container = remembering
    codec.encode = leaking


def _store_key_in_the_title() -> None:
    from keyhaul.command.laboratory.title import set_title
    from keyhaul.store import embedded, opening

    open_database = opening.open_database

    def leaking(path: Any, *rest: Any) -> Any:
        opened = open_database(path, *rest)
        set_title(path.with_name("store.key").read_text())
        return opened

    setattr(embedded, "open_database", leaking)  # noqa: B010


def _nothing_is_hardened() -> None:
    import keyhaul.runtime.process as process

    setattr(process, "harden", lambda: None)  # noqa: B010


def _keys_on_the_wire() -> None:
    import socket

    from services.ukms import kme

    container = kme._container

    def leaking(keys: Any) -> Any:
        made = container(keys)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to:
            to.sendto(b"".join(key.key for key in made.keys), ("127.213.255.254", 9))
        return made

    kme._container = leaking


def _ckms_tells_the_controller_of_users() -> None:
    from services.ckms.agent.facts import CarrierFacts

    service = CarrierFacts.service
    CarrierFacts.service = lambda self: service(self) | {"version": "1 for kestrel-w"}  # type: ignore[method-assign]


def _ckms_tells_its_akms_the_path() -> None:
    from keyhaul.transport import codec
    from keyhaul.transport.messages.relay import Outcome

    encode = codec.encode

    def leaking(message: Any) -> bytes:
        body = encode(message)
        return body[:-1] + b',"over":"ckms-droitwich"}' if isinstance(message, Outcome) else body

    codec.encode = leaking


def _file(name: str) -> str:
    """A file in the directory of the running service."""
    from keyhaul.store import opened

    [store] = opened.stores()
    return str(store._path.with_name(name))  # type: ignore[attr-defined]


LEAKS = {
    "ckms-logs-bits": Leak(_ckms_logs_bits, rules.CARRIED_KEYS, "ckms", "log"),
    "akms-names-the-user": Leak(_akms_names_the_user, rules.IDENTITY, "ckms", "message"),
    "ukms-tells-the-path": Leak(_ukms_tells_the_path, rules.TOPOLOGY, "ukms", "message"),
    "ckms-health-shows-bits": Leak(_ckms_health_shows_bits, rules.CARRIED_KEYS, "ckms", "page"),
    "fields-are-not-sealed": Leak(_fields_are_not_sealed, rules.LINK_KEYS, "ckms", "row"),
    "keys-beside-the-store": Leak(_keys_beside_the_store, rules.KEYS_OF_USERS, "ukms", "file"),
    "keys-to-the-akms": Leak(_keys_to_the_akms, rules.KEYS_OF_USERS, "akms", "message"),
    "store-key-in-the-title": Leak(_store_key_in_the_title, rules.OWN_KEYS, "ckms", "process"),
    "nothing-is-hardened": Leak(_nothing_is_hardened, rules.PROCESS, "akms", "process"),
    "ckms-tells-the-controller-of-users": Leak(
        _ckms_tells_the_controller_of_users, rules.IDENTITY, "controller", "gnmi"
    ),
    "ckms-tells-its-akms-the-path": Leak(_ckms_tells_its_akms_the_path, rules.INNER, "akms", "message"),
    "keys-on-the-wire": Leak(_keys_on_the_wire, rules.KEYS_OF_USERS, "wire", "wire"),
}
"""By name."""
