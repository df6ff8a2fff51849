"""Messages as JSON (RFC 8259) and back, with the checks that every message undergoes: version, and critical fields.

What is said about a refused message never quotes it: its content may be key bits.
"""

from __future__ import annotations

import functools
import re
from typing import Any, TypeVar

import msgspec

from keyhaul.transport.messages.base import PROTOCOL_VERSION, SUPPORTED_VERSIONS, ErrorCode, Message, ServiceError

Decoded = TypeVar("Decoded", bound=Message)

_HEAD = b'{"v":%d' % PROTOCOL_VERSION
_PATH = re.compile(r"\$[A-Za-z0-9_.\[\]]{0,80}$")


class _Head(msgspec.Struct):
    """What can be read of a message of any version."""

    v: int
    critical: tuple[str, ...] = ()


_encoder = msgspec.json.Encoder()
_head = msgspec.json.Decoder(_Head)


_decoders: dict[type[Message], msgspec.json.Decoder[Any]] = {}


def _decoder(kind: type[Decoded]) -> msgspec.json.Decoder[Decoded]:
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    return decoder


@functools.cache
def _fields(kind: type[Message]) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(kind))


def encode(message: Message) -> bytes:
    """Return the JSON of a message; its version stands first."""
    body = _encoder.encode(message)
    if message.v != PROTOCOL_VERSION:
        return body
    return _HEAD + b"}" if body == b"{}" else b"%b,%b" % (_HEAD, body[1:])


def decode(body: bytes, kind: type[Decoded]) -> Decoded:
    """Read a message.

    Args:
        body: JSON in UTF-8.
        kind: the type it must have; fields that the type does not know are ignored.

    Raises:
        ServiceError: `version` when it is of another version, or insists on a field that the type does not
            know; `malformed` when it is no such message.
    """
    if not body.startswith(_HEAD + b","):
        _check_head(body, kind)
    try:
        message = _decoder(kind).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        _check_head(body, kind)
        raise ServiceError(ErrorCode.MALFORMED, _safe(error)) from None
    if message.v not in SUPPORTED_VERSIONS:
        _check_head(body, kind)
    if message.critical:
        _check_critical(message.critical, kind)
    return message


def _check_head(body: bytes, kind: type[Message]) -> None:
    try:
        head = _head.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise ServiceError(ErrorCode.MALFORMED, _safe(error)) from None
    if head.v not in SUPPORTED_VERSIONS:
        supported = f"{SUPPORTED_VERSIONS.start} to {SUPPORTED_VERSIONS.stop - 1}"
        raise ServiceError(ErrorCode.VERSION, f"protocol versions {supported} are supported")
    _check_critical(head.critical, kind)


def _check_critical(names: tuple[str, ...], kind: type[Message]) -> None:
    if not _fields(kind).issuperset(names):
        raise ServiceError(ErrorCode.VERSION, "a critical field is not known here")


def _safe(error: Exception) -> str:
    if not isinstance(error, msgspec.ValidationError):
        return "the body is not JSON"
    place = _PATH.search(str(error).rstrip("`"))
    return f"a field is missing or not of its type, at {place.group()}" if place else "not a message of this operation"
