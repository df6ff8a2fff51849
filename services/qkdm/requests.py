"""How a module's KME answers the requests of ETSI GS QKD 014 V1.1.1 (sans-IO): one SAE here, one at the other end."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from keyhaul.keys import etsi014
from services.qkdm.end import End
from services.qkdm.store import HeldKey

MAXIMUM_KEYS_PER_REQUEST = 128
MAXIMUM_BODY = 65_536
"""Bytes of a request's body."""
LONGEST_RETRY = 10
"""Seconds."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PREFIX = ("api", "v1", "keys")

Body = TypeVar("Body")


@dataclass(frozen=True, slots=True)
class Request:
    """What arrived over HTTP."""

    caller: str | None
    """Common name of the client's verified certificate."""
    method: str
    path: Sequence[str]
    """Segments of the path, URL-decoded one by one."""
    query: Sequence[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    status: int
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """A request that gets another answer than 200."""

    def __init__(
        self,
        status: int,
        message: str,
        details: Sequence[dict[str, str]] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.details = list(details)
        self.headers = headers or {}

    def answer(self) -> Answer:
        """The error data format of clause 6.5."""
        return Answer(self.status, msgspec.json.encode(etsi014.Error(str(self), self.details)), self.headers)


@dataclass(frozen=True, slots=True)
class Names:
    """Who is at the two ends."""

    kme: str
    peer_kme: str
    sae: str
    peer_sae: str


class Kme:
    """The key management entity of one module."""

    def __init__(self, names: Names, end: End) -> None:
        self.names = names
        self._end = end

    def answer(self, request: Request, now: float, rate: float, figures: Mapping[str, float] | None = None) -> Answer:
        """Answer a request; keys in the answer have left the store and are gone from this KME.

        Args:
            request: what arrived.
            now: seconds.
            rate: secret bits per second at present, from which `Retry-After` is estimated.
            figures: told in the status's extension.
        """
        self._end.settle(now)
        try:
            return Answer(200, self._answer(request, now, rate, figures or {}))
        except Refused as refused:
            return refused.answer()

    def _answer(self, request: Request, now: float, rate: float, figures: Mapping[str, float]) -> bytes:
        if request.caller != self.names.sae:
            raise Refused(401, "this KME does not serve the SAE that the client certificate names")
        if len(request.path) != 5 or tuple(request.path[:3]) != _PREFIX:
            raise Refused(404, "no such resource")
        other, method = request.path[3:]
        if method not in ("status", "enc_keys", "dec_keys"):
            raise Refused(404, "no such resource")
        allowed = ("GET",) if method == "status" else ("GET", "POST")
        if request.method not in allowed:
            raise Refused(405, f"{method} is accessed by {' or '.join(allowed)}", headers={"Allow": ", ".join(allowed)})
        if other != self.names.peer_sae:
            raise Refused(400, "this KME shares no keys with that SAE")
        match method:
            case "status":
                return msgspec.json.encode(self._status(figures))
            case "enc_keys":
                return self._container(self._get_key(_key_request(request), now, rate))
            case _:
                return self._container(self._get_key_with_ids(_key_ids(request)))

    def _status(self, figures: Mapping[str, float]) -> etsi014.Status:
        size = self._end.key_size
        return etsi014.Status(
            source_KME_ID=self.names.kme,
            target_KME_ID=self.names.peer_kme,
            master_SAE_ID=self.names.sae,
            slave_SAE_ID=self.names.peer_sae,
            key_size=size,
            stored_key_count=self._end.level,
            max_key_count=self._end.capacity,
            max_key_per_request=MAXIMUM_KEYS_PER_REQUEST,
            max_key_size=size,
            min_key_size=size,
            max_SAE_ID_count=0,
            status_extension=dict(figures) if figures else msgspec.UNSET,
        )

    def _get_key(self, wanted: etsi014.KeyRequest, now: float, rate: float) -> list[HeldKey]:
        if not 1 <= wanted.number <= MAXIMUM_KEYS_PER_REQUEST:
            raise Refused(400, f"number shall be from 1 to {MAXIMUM_KEYS_PER_REQUEST}")
        if wanted.size is not None and wanted.size % 8:
            raise Refused(400, etsi014.SIZE_NOT_MULTIPLE_OF_8)
        if wanted.size is not None and wanted.size != self._end.key_size:
            raise Refused(400, f"size shall be {self._end.key_size}")
        if wanted.additional_slave_SAE_IDs:
            raise Refused(400, "additional slave SAEs are not supported")
        if wanted.extension_mandatory:
            raise Refused(
                400,
                etsi014.MANDATORY_UNSUPPORTED,
                [
                    {"extension_mandatory_unsupported": f"{name} is not supported"}
                    for extension in wanted.extension_mandatory
                    for name in extension
                ],
            )
        keys = self._end.give(wanted.number, now)
        if keys is None:
            wait = self._seconds_until(wanted.number, rate)
            raise Refused(503, "not enough keys are stored at present", headers={"Retry-After": str(wait)})
        return keys

    def _get_key_with_ids(self, key_ids: list[UUID]) -> list[HeldKey]:
        keys = self._end.fetch(key_ids)
        if keys is None:
            raise Refused(400, etsi014.KEYS_NOT_FOUND)
        return keys

    def _container(self, keys: list[HeldKey]) -> bytes:
        body = msgspec.json.encode(
            etsi014.KeyContainer([etsi014.Key(key_ID=key.id, key=key.material.reveal()) for key in keys])
        )
        for key in keys:
            key.material.wipe()
        return body

    def _seconds_until(self, number: int, rate: float) -> int:
        if rate <= 0.0:
            return LONGEST_RETRY
        missing = max(1, number - self._end.level) * self._end.key_size
        return max(1, min(LONGEST_RETRY, math.ceil(missing / rate)))


def _key_request(request: Request) -> etsi014.KeyRequest:
    """Get key: by GET at most `number` and `size`, else by POST a key request (clause 6.2)."""
    if request.method == "POST":
        return _body(request.body or b"{}", etsi014.KeyRequest)
    values = _query(request, {"number", "size"})
    number = _integer(values, "number")
    return etsi014.KeyRequest(number=1 if number is None else number, size=_integer(values, "size"))


def _key_ids(request: Request) -> list[UUID]:
    """Get key with key IDs: by GET exactly one `key_ID`, else by POST key IDs (clause 6.4)."""
    if request.method == "POST":
        texts = [entry.key_ID for entry in _body(request.body, etsi014.KeyIds).key_IDs]
    else:
        values = _query(request, {"key_ID"})
        if "key_ID" not in values:
            raise Refused(400, "key_ID is missing")
        texts = [values["key_ID"]]
    if not 1 <= len(texts) <= MAXIMUM_KEYS_PER_REQUEST:
        raise Refused(400, f"from 1 to {MAXIMUM_KEYS_PER_REQUEST} key IDs are answered at a time")
    if not all(_UUID.fullmatch(text) for text in texts):
        raise Refused(400, "a key_ID shall be a UUID")
    key_ids = [UUID(text) for text in texts]
    if len(set(key_ids)) != len(key_ids):
        raise Refused(400, "a key_ID shall be named once")
    return key_ids


def _body(body: bytes, kind: type[Body]) -> Body:
    try:
        return msgspec.json.decode(body.decode(), type=kind)
    except msgspec.ValidationError as error:
        raise Refused(400, f"the body is not as specified: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(400, "the body is not JSON in UTF-8") from None


def _query(request: Request, known: set[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in request.query:
        if name not in known:
            raise Refused(400, "a parameter of the query is not known; everything else is asked by POST")
        if name in values:
            raise Refused(400, f"{name} shall be given once")
        values[name] = value
    return values


def _integer(values: dict[str, Any], name: str) -> int | None:
    text = values.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise Refused(400, f"{name} shall be a whole number")
    return int(text)
