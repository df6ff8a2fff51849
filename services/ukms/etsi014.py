"""Requests of ETSI GS QKD 014 V1.1.1 as they come from an SAE, and every answer that is not a success.

Sans-IO: bytes and strings in, typed requests out; whether they can be wanted is in `wanted`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar
from urllib.parse import parse_qsl, unquote
from uuid import UUID

import msgspec

from keyhaul.keys.etsi014 import (
    KEYS_NOT_FOUND,
    Error,
    KeyIds,
    KeyRequest,
)
from keyhaul.keys.material import KeyId

MAXIMUM_BODY = 256 * 1024
"""Bytes of a request's body: 1,024 key IDs with their extensions fit."""

MAXIMUM_KEY_IDS = 1024
"""Keys that one dec_keys may ask for."""

ROOT = "/api/v1/keys/"

_DIGITS = re.compile(r"[0-9]{1,9}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

Body = TypeVar("Body", KeyRequest, KeyIds)


class Method(StrEnum):
    """The three methods of the interface, by the last part of their URL."""

    STATUS = "status"
    ENC_KEYS = "enc_keys"
    DEC_KEYS = "dec_keys"


ALLOWED: dict[Method, tuple[str, ...]] = {
    Method.STATUS: ("GET",),
    Method.ENC_KEYS: ("GET", "POST"),
    Method.DEC_KEYS: ("GET", "POST"),
}


class Refusal(Exception):
    """A request that is not answered with 200: the HTTP status and the Error body (clause 6.5)."""

    def __init__(
        self,
        status: int,
        message: str,
        details: list[dict[str, str]] | None = None,
        *,
        retry_after: int | None = None,
        allow: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = Error(message, details or [])
        self.retry_after = retry_after
        """Seconds after which it makes sense to ask again."""
        self.allow = allow
        """With 405: the HTTP methods that the URL serves."""


def slave_refused() -> Refusal:
    """The one answer for a slave SAE that does not exist and for one with which the caller may share no keys."""
    return Refusal(400, "no keys can be shared with the given slave SAE ID")


def keys_not_found() -> Refusal:
    """The prescribed answer when any of the key IDs is unknown, taken or ended."""
    return Refusal(400, KEYS_NOT_FOUND)


def not_named() -> Refusal:
    """The answer to an SAE that asks for keys which were not made for it."""
    return Refusal(401, "the SAE was not named for one or more of the keys specified")


def exhausted(retry_after: int = 1) -> Refusal:
    """There are not enough keys now."""
    return Refusal(503, "not enough keys are available at present", retry_after=max(1, retry_after))


def unavailable(retry_after: int = 1) -> Refusal:
    """The KME cannot answer now."""
    return Refusal(503, "the KME cannot serve the request at present", retry_after=max(1, retry_after))


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL names."""

    method: Method
    sae: str
    """The SAE ID of the path, decoded, as the client wrote it (see `wanted.named_sae`)."""


def target(raw_path: str) -> Target:
    """Read a URL's path, still percent-encoded.

    Raises:
        Refusal: 404.
    """
    if raw_path.startswith(ROOT):
        sae, _, method = raw_path[len(ROOT) :].partition("/")
        if sae and method in frozenset(Method):
            try:
                return Target(Method(method), unquote(sae, errors="strict"))
            except UnicodeDecodeError:
                return Target(Method(method), "")
    raise Refusal(404, "there is nothing at this URL")


def check_method(wanted: Target, http_method: str) -> None:
    """Check that the URL serves an HTTP method.

    Raises:
        Refusal: 405.
    """
    allowed = ALLOWED[wanted.method]
    if http_method not in allowed:
        raise Refusal(405, f"{wanted.method} is asked by {' or '.join(allowed)}", allow=allowed)


def no_parameters(query: str) -> None:
    """Check that a URL has no query.

    Raises:
        Refusal: 400.
    """
    if query:
        raise Refusal(400, "this request takes no parameters in the URL")


def get_enc_keys(query: str) -> KeyRequest:
    """Read the query of a Get key by GET: nothing, or `number` and `size`.

    Raises:
        Refusal: 400.
    """
    values = _parameters(query, ("number", "size"))
    request = KeyRequest()
    if "number" in values:
        request.number = _integer("number", values["number"])
    if "size" in values:
        request.size = _integer("size", values["size"])
    return request


def post_enc_keys(body: bytes) -> KeyRequest:
    """Read the body of a Get key by POST; no body means ``{}``.

    Raises:
        Refusal: 400.
    """
    return _decode(body, KeyRequest, "key request")


def get_dec_keys(query: str) -> tuple[KeyId, ...]:
    """Read the query of a Get key with key IDs by GET: exactly one `key_ID`.

    Raises:
        Refusal: 400.
    """
    values = _parameters(query, ("key_ID",))
    if "key_ID" not in values:
        raise Refusal(400, "key_ID is missing")
    return (_key_id(values["key_ID"]),)


def post_dec_keys(body: bytes) -> tuple[KeyId, ...]:
    """Read the body of a Get key with key IDs by POST.

    Raises:
        Refusal: 400: not the format, no ID, too many, one twice, or one that is not a UUID.
    """
    entries = _decode(body, KeyIds, "list of key IDs").key_IDs
    if not entries:
        raise Refusal(400, "key_IDs names no key")
    if len(entries) > MAXIMUM_KEY_IDS:
        raise Refusal(400, f"key_IDs names more than {MAXIMUM_KEY_IDS} keys")
    found = tuple(_key_id(entry.key_ID) for entry in entries)
    if len(set(found)) != len(found):
        raise Refusal(400, "key_IDs names a key more than once")
    return found


def _parameters(query: str, known: tuple[str, ...]) -> dict[str, str]:
    if not query:
        return {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=8)
    except ValueError:
        raise Refusal(400, "the URL's query cannot be read") from None
    values = dict(pairs)
    if len(values) != len(pairs) or not set(values) <= set(known):
        raise Refusal(400, f"by GET only {' and '.join(known)} can be given, once each: use POST for more")
    return values


def _integer(name: str, text: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise Refusal(400, f"{name} shall be a whole number")
    return int(text)


def _key_id(text: str) -> KeyId:
    if not _UUID.fullmatch(text):
        raise Refusal(400, "key_ID shall be a UUID")
    return UUID(text)


def _decode(body: bytes, kind: type[Body], name: str) -> Body:
    try:
        return msgspec.json.decode(body.strip() or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise Refusal(400, f"the body is not a {name}", [{"body": str(error)}]) from None
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise Refusal(400, f"the body is not a {name} in JSON") from None
