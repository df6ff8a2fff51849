"""`python -m bench.generator`: asks one KME for keys over some connections as fast as it answers.

One line of JSON on standard input says whom and how often; one on standard output says how long it took. It writes
ready-made requests and looks for the end of each answer only, so that it needs less of a processor than any server.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from typing import Any
from urllib.parse import urlsplit


class Refused(Exception):
    """The KME answered with another status than 200."""


async def generate(order: dict[str, Any]) -> dict[str, Any]:
    """Send `requests` POSTs of `enc_keys` over `connections`; return their number, seconds and the CPU they took.

    Raises:
        Refused: a request was not answered 200.
    """
    context = ssl.create_default_context(cafile=order["ca"])
    context.load_cert_chain(order["certificate"], order["key"])
    url = urlsplit(order["url"])
    body = json.dumps({"number": order["number"]}).encode()
    head = f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
    message = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    streams = [await asyncio.open_connection(url.hostname, url.port, ssl=context) for _ in range(order["connections"])]
    left: int = order["requests"]

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            writer.write(message)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            content = await reader.readexactly(int(length))
            if not answer.startswith(b"HTTP/1.1 200"):
                raise Refused(f"{answer.splitlines()[0].decode()}: {content[:200].decode(errors='replace')}")

    begin, used = time.perf_counter(), time.process_time()
    try:
        await asyncio.gather(*(work(*stream) for stream in streams))
        return {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - used}
    finally:
        for _, writer in streams:
            writer.transport.abort()


def main() -> None:
    print(json.dumps(asyncio.run(generate(json.loads(sys.stdin.readline())))))


if __name__ == "__main__":
    main()
