"""Schema of `proto/keyhaul-ckms.yang`: what a CKMS tells its controller, and the statements that it takes."""

from __future__ import annotations

from keyhaul.agents.gnmi.schema import Module, container, leaf, leaf_list, list_of
from keyhaul.agents.gnmi.types import BOOLEAN, UINT8, UINT32, UINT64, Binary, Decimal64, Integer, Text, enumeration
from keyhaul.agents.signing import LONGEST_SIGNATURE
from keyhaul.agents.statements import MAXIMUM_BODY, MAXIMUM_SHARES

NAME = "keyhaul-ckms"
TOP = f"{NAME}:carrier"

_SERVICE = Text(48, r"ckms-[a-z0-9]([a-z0-9\-]{0,30}[a-z0-9])?")
_LABEL = Text(16, r"[0-9a-f]{16}")
_SUITE = enumeration("otp", "aes-256-gcm", "ml-kem", "hybrid")
_CLASS = enumeration("gold", "silver", "bronze", "split")
_CLASS_OR_ANY = enumeration("any", "gold", "silver", "bronze", "split")
_NAME = Text(65, r"[A-Za-z0-9][A-Za-z0-9._\-]*")

_POOL = list_of(
    "pool",
    ["direction"],
    leaf("direction", enumeration("outgoing", "incoming")),
    leaf("available", UINT64),
    leaf("capacity", UINT64),
    leaf("reserve", UINT64),
    leaf("bytes-in", UINT64),
    leaf("bytes-used", UINT64),
    leaf("bytes-burned", UINT64),
)

_LINK = list_of(
    "link",
    ["neighbour"],
    leaf("neighbour", _SERVICE),
    leaf("id", _NAME),
    leaf("up", BOOLEAN),
    leaf("enabled", BOOLEAN),
    leaf("quantum", BOOLEAN),
    leaf("suite", _SUITE),
    leaf_list("suites", _SUITE),
    leaf("rate", UINT64),
    leaf("qber", Decimal64(6)),
    leaf("latency", UINT32),
    _POOL,
    unit=True,
    sampled=True,
)

_RELAY = container(
    "relay",
    leaf("submitted", UINT64),
    leaf("forwarded", UINT64),
    leaf("delivered", UINT64),
    leaf("bytes", UINT64),
    list_of("failure", ["reason"], leaf("reason", _NAME), leaf("count", UINT64)),
    config=False,
    unit=True,
    sampled=True,
)

_COUNTED = (leaf("serial", UINT64), leaf("batches", UINT64), leaf("bytes", UINT64), leaf("refused", UINT64))

_ENTRY = list_of(
    "entry",
    ["previous", "label"],
    leaf("previous", _SERVICE),
    leaf("label", _LABEL),
    leaf("next", _SERVICE),
    leaf("next-label", _LABEL),
    leaf("detour", _SERVICE),
    leaf("detour-label", _LABEL),
    leaf("service-class", _CLASS),
    leaf("rate", UINT64),
    leaf("burst", UINT64),
    leaf("remaining", UINT32),
    *_COUNTED,
    config=False,
    unit=True,
    sampled=True,
)

_PATH = list_of(
    "path",
    ["destination", "service-class", "rank", "origin"],
    leaf("destination", _SERVICE),
    leaf("service-class", _CLASS_OR_ANY),
    leaf("rank", UINT8),
    leaf("origin", enumeration("statement", "configuration")),
    leaf("group", Text(32, r"[0-9a-f]{32}")),
    leaf("share", UINT8),
    leaf("shares", Integer(1, MAXIMUM_SHARES)),
    leaf("next", _SERVICE),
    leaf("next-label", _LABEL),
    leaf("rate", UINT64),
    leaf("burst", UINT64),
    leaf("remaining", UINT32),
    *_COUNTED,
    config=False,
    unit=True,
    sampled=True,
)

_STATEMENT = list_of(
    "statement",
    ["serial"],
    leaf("serial", UINT64),
    leaf("body", Binary(MAXIMUM_BODY)),
    leaf("signature", Binary(LONGEST_SIGNATURE)),
    unit=True,
)

CARRIER = container(
    "carrier",
    leaf("service-id", _SERVICE, config=False),
    leaf("version", Text(64), config=False),
    leaf("incarnation", Text(64, r"[0-9a-f]{16,64}"), config=False),
    leaf("started-seconds-ago", UINT64, config=False, sampled=True),
    container("links", _LINK, config=False),
    _RELAY,
    container(
        "forwarding",
        leaf("epoch", UINT64, config=False),
        leaf("serial", UINT64, config=False),
        leaf("in-doubt", BOOLEAN, config=False),
        leaf("hard-limit", UINT32, config=False),
        _STATEMENT,
        _ENTRY,
        _PATH,
    ),
)

MODULE = Module(NAME, "Keyhaul", "2026-11-22", "urn:keyhaul:yang:ckms", (CARRIER,))
