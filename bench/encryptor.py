"""An encryptor for measurements: a plain HTTPS client of ETSI GS QKD 014 on the standard library's TLS."""

from __future__ import annotations

import base64
import json
import ssl
from types import TracebackType
from typing import Any, Self

import aiohttp


class Refused(Exception):
    """The KME answered with another status than 200."""

    def __init__(self, status: int, body: str, retry_after: int = 0) -> None:
        super().__init__(f"{status}: {body[:200]}")
        self.status = status
        self.retry_after = retry_after
        """Seconds, as the header says; 0 where there is none."""


class Encryptor:
    """One SAE of a network's `network.json`, with persistent connections to its UKMS."""

    def __init__(self, entry: dict[str, Any], connections: int = 16) -> None:
        self.id: str = entry["id"]
        self._root = entry["ukms"].rstrip("/") + "/api/v1/keys/"
        context = ssl.create_default_context(cafile=entry["ca"])
        context.load_cert_chain(entry["certificate"], entry["key"])
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=connections))

    async def get_key(self, slave: str, number: int = 1) -> dict[str, bytes]:
        """`enc_keys`: key IDs and keys shared with a slave.

        Raises:
            Refused: the KME did not answer 200.
        """
        url = f"{self._root}{slave}/enc_keys"
        async with self._session.post(url, json={"number": number}) as answer:
            return await self._keys(answer)

    async def get_key_with_ids(self, master: str, identifiers: list[str]) -> dict[str, bytes]:
        """`dec_keys`: the slave's copies.

        Raises:
            Refused: the KME did not answer 200.
        """
        url = f"{self._root}{master}/dec_keys"
        body = {"key_IDs": [{"key_ID": identifier} for identifier in identifiers]}
        async with self._session.post(url, json=body) as answer:
            return await self._keys(answer)

    async def status(self, slave: str) -> dict[str, Any]:
        """`status` towards a slave."""
        async with self._session.get(f"{self._root}{slave}/status") as answer:
            if answer.status != 200:
                raise Refused(answer.status, await answer.text())
            found: dict[str, Any] = await answer.json()
            return found

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._session.close()

    @staticmethod
    async def _keys(answer: aiohttp.ClientResponse) -> dict[str, bytes]:
        body = await answer.read()
        if answer.status != 200:
            raise Refused(answer.status, body.decode(errors="replace"), int(answer.headers.get("Retry-After", 0)))
        return {key["key_ID"]: base64.b64decode(key["key"]) for key in json.loads(body)["keys"]}


async def share(master: Encryptor, slave: Encryptor, number: int = 1) -> dict[str, bytes]:
    """Share keys as two encryptors do, and check that both have the same.

    Raises:
        Refused: a KME did not answer 200.
        AssertionError: the keys differ.
    """
    made = await master.get_key(slave.id, number)
    taken = await slave.get_key_with_ids(master.id, list(made))
    if made != taken:
        raise AssertionError("the two encryptors got different keys")
    return made
