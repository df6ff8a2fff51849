"""`python -m bench.memory_kme SERVICE_DIRECTORY HOST PORT KEYS`: a KME of a few dozen lines, keys in memory alone.

What a UKMS is compared with: aiohttp, the same TLS and certificates, no store, no buffers, no rights, no network.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import uuid
from collections import deque
from pathlib import Path

from aiohttp import web

from keyhaul.transport.tls import classic_server


class MemoryKme:
    """Hands out 256-bit keys from a queue, and their copies by ID."""

    def __init__(self, number: int) -> None:
        self._ready = deque((str(uuid.uuid4()), base64.b64encode(os.urandom(32)).decode()) for _ in range(number))
        self._copies: dict[str, str] = {}

    async def enc_keys(self, request: web.Request) -> web.Response:
        """The next keys."""
        body = await request.json()
        number = int(body.get("number", 1))
        if len(self._ready) < number:
            return web.json_response({"message": "no keys"}, status=503)
        taken = [self._ready.popleft() for _ in range(number)]
        self._copies.update(taken)
        return web.json_response({"keys": [{"key_ID": name, "key": key} for name, key in taken]})

    async def dec_keys(self, request: web.Request) -> web.Response:
        """Copies of issued keys."""
        names = [entry["key_ID"] for entry in (await request.json())["key_IDs"]]
        if not all(name in self._copies for name in names):
            return web.json_response({"message": "not found"}, status=404)
        return web.json_response({"keys": [{"key_ID": name, "key": self._copies.pop(name)} for name in names]})


async def serve(directory: Path, host: str, port: int, number: int) -> None:
    """Serve until the process is ended."""
    kme = MemoryKme(number)
    application = web.Application()
    application.router.add_post("/api/v1/keys/{slave}/enc_keys", kme.enc_keys)
    application.router.add_post("/api/v1/keys/{master}/dec_keys", kme.dec_keys)
    files = [directory / name for name in ("sae-certificate.pem", "sae-key.pem", "saes.pem", "saes-crl.pem")]
    tls = classic_server(files[0], files[1], files[2], files[3])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port, ssl_context=tls).start()
    print("serving", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
