"""`python -m bench.greedy`: a customer that asks for keys at a steady rate, whatever it is answered.

One line of JSON on standard input says whom and how often; one on standard output counts the answers by status. A
request that is not answered when `OPEN` others are not either is left out, and counted as such.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

import aiohttp

from bench.encryptor import Encryptor, Refused

OPEN = 200
CONNECTIONS = 64


async def ask(order: dict[str, Any]) -> dict[str, Any]:
    """Ask for `seconds`; return how often each status was answered."""
    answers: Counter[str] = Counter()
    running: set[asyncio.Task[None]] = set()
    pause = 1.0 / order["requests_per_second"]

    async def one(master: Encryptor) -> None:
        try:
            await master.get_key(order["slave"], order["keys"])
            answers["200"] += 1
        except Refused as refused:
            answers[str(refused.status)] += 1
        except aiohttp.ClientError:
            answers["none"] += 1

    async with Encryptor(order, connections=CONNECTIONS) as master:
        begin = time.perf_counter()
        number = 0
        while (now := time.perf_counter() - begin) < order["seconds"]:
            if now < number * pause:
                await asyncio.sleep(number * pause - now)
                continue
            number += 1
            if len(running) >= OPEN:
                answers["left out"] += 1
                continue
            task = asyncio.create_task(one(master))
            running.add(task)
            task.add_done_callback(running.discard)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return {"answers": dict(answers)}


def main() -> None:
    print(json.dumps(asyncio.run(ask(json.loads(sys.stdin.readline())))))


if __name__ == "__main__":
    main()
