"""A client of ETSI GS QKD 014 V1.1.1: what a KMS uses towards its QKD module, and people towards a UKMS.

It trusts the KME no further than it must: the certificate has to name the expected KME before a request leaves, and
answers are bounded in size and checked against what was asked.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode
from uuid import UUID

import aiohttp
import msgspec
from aiohttp.connector import Connection
from yarl import URL

from keyhaul.keys.etsi014 import Error, KeyContainer, KeyIdEntry, KeyIds, KeyRequest, Status
from keyhaul.transport.tls import peer_common_name

DEADLINE = 10.0
"""Seconds a call takes at most, unless its caller says otherwise."""
MAXIMUM_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer's body."""
MAXIMUM_CONNECTIONS = 4
"""To one KME."""
IDLE_SECONDS = 30.0
"""An unused connection is closed before the KME is likely to do so."""
_MAXIMUM_MESSAGE = 500
_LONGEST_RETRY = 3_600.0

Body = TypeVar("Body")


class Etsi014Error(Exception):
    """The KME refused."""

    def __init__(
        self, status: int, message: str, retry_after: float | None = None, details: Sequence[dict[str, str]] = ()
    ) -> None:
        super().__init__(f"{status}: {message}" if message else str(status))
        self.status = status
        """HTTP status."""
        self.message = message
        """As the KME words it (clause 6.5)."""
        self.retry_after = retry_after
        """Seconds after which the KME suggests to ask again."""
        self.details = list(details)


class Etsi014Invalid(Etsi014Error):
    """The KME answered 200, but not with what was asked for: nothing of it may be used."""


class Etsi014Unreachable(Exception):
    """No answer: no connection, another KME than expected, or too late. Whether the KME acted is unknown."""


class Client014:
    """One SAE's view of one KME, over at most `MAXIMUM_CONNECTIONS` connections that are kept open."""

    def __init__(self, url: str, tls: ssl.SSLContext, *, expected_kme: str | None) -> None:
        """Prepare; nothing is dialled before the first call.

        Args:
            url: of the KME, e.g. ``https://127.16.0.8:8014``; a path in it comes before ``/api/v1``.
            tls: from `keyhaul.transport.tls.classic_client`; its certificate says who we are.
            expected_kme: KME ID that the server's certificate must have as common name; None: any that `tls` trusts.

        Raises:
            ValueError: the URL is not of the form ``https://HOST[:PORT]``.
        """
        parsed = URL(url)
        if parsed.scheme != "https" or not parsed.host or parsed.query_string or parsed.fragment or parsed.user:
            raise ValueError(f"{url!r} is not the URL of a KME, https://HOST:PORT")
        self._base = str(parsed).rstrip("/") + "/api/v1/keys/"
        self._tls = tls
        self._expected_kme = expected_kme
        self._session: aiohttp.ClientSession | None = None

    async def status(self, slave: str, *, deadline: float = DEADLINE) -> Status:
        """Get status of the keys shared with `slave` (clause 5.1).

        Raises:
            Etsi014Error: the KME refused; `Etsi014Invalid`, if what it answered makes no sense.
            Etsi014Unreachable: it did not answer within `deadline` seconds.
        """
        status = await self._call("GET", f"{_segment(slave)}/status", None, Status, deadline)
        if not (
            0 < status.min_key_size <= status.key_size <= status.max_key_size
            and status.max_key_per_request > 0
            and status.stored_key_count >= 0
            and status.max_key_count >= 0
            and status.max_SAE_ID_count >= 0
        ):
            raise Etsi014Invalid(200, "the status has impossible numbers")
        return status

    async def get_key(
        self,
        slave: str,
        *,
        number: int = 1,
        size: int | None = None,
        additional_slaves: Sequence[str] = (),
        extension_mandatory: Sequence[dict[str, Any]] = (),
        extension_optional: Sequence[dict[str, Any]] = (),
        deadline: float = DEADLINE,
    ) -> KeyContainer:
        """Get `number` keys shared with `slave`, each of `size` bits, or of the KME's default size (clause 5.2).

        GET is used where only number and size are told, POST otherwise.

        Raises:
            Etsi014Error: the KME refused; `Etsi014Invalid`, if it gave other than `number` different keys of that size.
            Etsi014Unreachable: it did not answer within `deadline` seconds; the keys it may have given out are lost.
        """
        path = f"{_segment(slave)}/enc_keys"
        if additional_slaves or extension_mandatory or extension_optional:
            request = KeyRequest(
                number, size, list(additional_slaves), list(extension_mandatory), list(extension_optional)
            )
            container = await self._call("POST", path, request, KeyContainer, deadline)
        else:
            asked = {} if number == 1 else {"number": number}
            asked |= {} if size is None else {"size": size}
            query = f"?{urlencode(asked)}" if asked else ""
            container = await self._call("GET", path + query, None, KeyContainer, deadline)
        _check_sizes(container, number, size)
        return container

    async def get_key_with_ids(self, master: str, ids: Sequence[UUID], *, deadline: float = DEADLINE) -> KeyContainer:
        """Get the keys with those IDs, which `master` got before (clause 5.3), in the order of `ids`.

        Raises:
            Etsi014Error: the KME refused, for want of one of them also (`KEYS_NOT_FOUND`); `Etsi014Invalid`, if it gave
                others than those.
            Etsi014Unreachable: it did not answer within `deadline` seconds; the keys it may have given out are lost.
        """
        path = f"{_segment(master)}/dec_keys"
        if len(ids) == 1:
            container = await self._call("GET", f"{path}?key_ID={ids[0]}", None, KeyContainer, deadline)
        else:
            request = KeyIds([KeyIdEntry(str(key_id)) for key_id in ids])
            container = await self._call("POST", path, request, KeyContainer, deadline)
        _check_sizes(container, len(ids), None)
        by_id = {key.key_ID: key for key in container.keys}
        if by_id.keys() != set(ids):
            raise Etsi014Invalid(200, "the answer has keys that were not asked for")
        container.keys = [by_id[key_id] for key_id in ids]
        return container

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _call(
        self, method: str, path: str, body: KeyRequest | KeyIds | None, kind: type[Body], deadline: float
    ) -> Body:
        session = self._open()
        try:
            async with (
                asyncio.timeout(deadline),
                session.request(
                    method,
                    URL(self._base + path, encoded=True),
                    data=None if body is None else msgspec.json.encode(body),
                    headers={} if body is None else {"Content-Type": "application/json"},
                    allow_redirects=False,
                ) as response,
            ):
                text = await _read(response)
                status, retry_after = response.status, _retry_after(response)
        except TimeoutError:
            raise Etsi014Unreachable(f"no answer within {deadline:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Etsi014Unreachable(_reason(error)) from None
        if status != 200:
            refusal = _decode_error(text)
            raise Etsi014Error(status, refusal.message, retry_after, refusal.details)
        return _decode(text, kind)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self._tls, limit=MAXIMUM_CONNECTIONS, keepalive_timeout=IDLE_SECONDS, use_dns_cache=False
                ),
                request_class=_checking(self._expected_kme),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            )
        return self._session


def _checking(expected_kme: str | None) -> type[aiohttp.ClientRequest]:
    """A request that leaves only towards the expected KME."""

    class CheckedRequest(aiohttp.ClientRequest):
        async def send(self, conn: Connection) -> aiohttp.ClientResponse:
            if expected_kme is not None:
                transport = conn.transport
                if transport is None:
                    raise aiohttp.ServerDisconnectedError
                if peer_common_name(transport) != expected_kme:
                    transport.abort()
                    raise ssl.SSLCertVerificationError(1, f"the server's certificate is not that of KME {expected_kme}")
            return await super().send(conn)

    return CheckedRequest


def _segment(sae: str) -> str:
    return quote(sae, safe="")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAXIMUM_ANSWER:
            raise aiohttp.ClientPayloadError(f"an answer longer than {MAXIMUM_ANSWER} bytes")
    return bytes(body)


def _decode(text: bytes, kind: type[Body]) -> Body:
    try:
        return msgspec.json.decode(text.decode(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Etsi014Invalid(200, f"the answer is no {kind.__name__} in JSON") from None


def _decode_error(text: bytes) -> Error:
    """Read an error body; one that is none counts as empty. It is shown to people, so it is bounded and printable."""
    try:
        error = _decode(text, Error)
    except Etsi014Invalid:
        return Error("")
    message = "".join(character if character.isprintable() else " " for character in error.message)
    return Error(message[:_MAXIMUM_MESSAGE], error.details)


def _check_sizes(container: KeyContainer, number: int, size: int | None) -> None:
    keys = container.keys
    if len(keys) != number:
        raise Etsi014Invalid(200, f"{number} keys were asked for and {len(keys)} given")
    if len({key.key_ID for key in keys}) != len(keys):
        raise Etsi014Invalid(200, "a key ID is given twice")
    sizes = {8 * len(key.key) for key in keys}
    if len(sizes) > 1 or 0 in sizes or (size is not None and sizes != {size}):
        raise Etsi014Invalid(200, "keys are not of the size that was asked for")


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    text = response.headers.get("Retry-After", "")
    return min(float(text), _LONGEST_RETRY) if text.isascii() and text.isdigit() else None


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
