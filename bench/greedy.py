"""`python -m bench.greedy`: a customer that asks for keys at a steady rate, whatever it is answered.

Each line of JSON on standard input is an order: a list of targets (`url`, `keys`, `requests_per_second`), for how many
`seconds`. For each, one line on standard output counts the answers by status, target by target, and tells the processor
time that this process took. One connection carries one request at a time; a request for which none of `CONNECTIONS` is
free is left out, and counted as such. Requests are ready-made, and of an answer only the status is read, so that the
customer itself takes as little of the machine as it can.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

CONNECTIONS = 64
"""To each target."""

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Customer:
    """One SAE that asks at one or several places."""

    def __init__(self, sae: dict[str, Any]) -> None:
        self._tls = ssl.create_default_context(cafile=sae["ca"])
        self._tls.load_cert_chain(sae["certificate"], sae["key"])
        self._free: dict[str, list[Stream]] = {}

    async def connect(self, url: str) -> None:
        """Open the connections to a target, once."""
        if url not in self._free:
            at = urlsplit(url)
            self._free[url] = [
                await asyncio.open_connection(at.hostname, at.port, ssl=self._tls) for _ in range(CONNECTIONS)
            ]

    async def ask(self, target: dict[str, Any], seconds: float) -> dict[str, int]:
        """Ask one target at its pace; return how often each status was answered."""
        answers: Counter[str] = Counter()
        running: set[asyncio.Task[None]] = set()
        free, message = self._free[target["url"]], _message(target)
        pause = 1.0 / target["requests_per_second"]
        begin = time.perf_counter()
        for number in range(round(seconds * target["requests_per_second"])):
            await asyncio.sleep(max(0.0, begin + number * pause - time.perf_counter()))
            if not free:
                answers["left out"] += 1
                continue
            task = asyncio.create_task(_one(free, message, answers))
            running.add(task)
            task.add_done_callback(running.discard)
        if running:
            await asyncio.wait(running)
        return dict(answers)


async def _one(free: list[Stream], message: bytes, answers: Counter[str]) -> None:
    reader, writer = stream = free.pop()
    try:
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        answers["none"] += 1
        return
    answers[head.split(maxsplit=2)[1].decode()] += 1
    free.append(stream)


def _message(target: dict[str, Any]) -> bytes:
    url = urlsplit(target["url"])
    body = json.dumps({"number": target["keys"]}).encode()
    head = f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def serve() -> None:
    """Do what standard input orders, line by line; the first line is the SAE."""
    loop = asyncio.get_running_loop()
    customer = Customer(json.loads(await loop.run_in_executor(None, sys.stdin.readline)))
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        for target in order["targets"]:
            await customer.connect(target["url"])
        used = time.process_time()
        answers = await asyncio.gather(*(customer.ask(target, order["seconds"]) for target in order["targets"]))
        print(json.dumps({"answers": answers, "cpu_seconds": time.process_time() - used}), flush=True)


if __name__ == "__main__":
    asyncio.run(serve())
