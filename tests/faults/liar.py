"""A CKMS that deals badly with its controller: ``liar.py HOW serve ckms --config FILE``.

It tells nonsense, or does not take what is stated; all else of it works, it relays keys too.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

NOWHERE = "ckms-atlantis"
"""A neighbour that no plan knows."""

MANY = 100_000
"""Links of one node."""

ENORMOUS = 48 << 20
"""Bytes of one value."""


def figures() -> None:
    """Rates of 10^18, pools that are fuller than they are large, and more errors than bits."""

    def absurd(links: list[dict[str, Any]]) -> list[dict[str, Any]]:
        full = {"available": 2**62, "capacity": 4_096, "reserve": 2**62, "bytes-in": 2**62}
        return [
            link | {"rate": 10**18, "qber": 7.5, "latency": 2**32 - 1, "pool": [pool | full for pool in link["pool"]]}
            for link in links
        ]

    _tell_of_links(absurd)


def neighbours() -> None:
    """Links to a node that does not exist, also under the id of a planned link."""

    def stray(links: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [*links, links[0] | {"neighbour": NOWHERE}, links[0] | {"neighbour": f"{NOWHERE}-2", "id": "a-atlantis"}]

    _tell_of_links(stray)


def many() -> None:
    """A hundred thousand links."""
    made: list[dict[str, Any]] = []

    def crowd(links: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not made:
            made.extend(links[0] | {"neighbour": f"ckms-x{number}", "id": f"x-{number}"} for number in range(MANY))
        return [*made, *links]

    _tell_of_links(crowd)


def types() -> None:
    """Values of other types than they should be, and what is no JSON at all."""
    turns = [
        b'{"keyhaul-ckms:id":["a"],"keyhaul-ckms:up":"perhaps"}',
        b"[" * 5_000,
        b"\xff\xfe\x00",
        b"null",
        b'{"',
        b"1e999",
    ]

    def wrong(true: bytes) -> bytes:
        turns.append(turns.pop(0))
        return turns[0]

    _encode(wrong)


def enormous() -> None:
    """A name of many megabytes."""
    _encode(lambda true: b'{"keyhaul-ckms:id":"' + b"x" * ENORMOUS + b'"}')


def refuses() -> None:
    """Refuse all that is stated but withdrawals."""
    from keyhaul.agents.gnmi.errors import Code, Refused

    async def refuse() -> None:
        raise Refused(Code.FAILED_PRECONDITION, "unfit: not today")

    _before_statements(refuse)


def stalls() -> None:
    """Never answer to what is stated, but to withdrawals."""

    async def stall() -> None:
        await asyncio.Event().wait()

    _before_statements(stall)


WAYS: dict[str, Callable[[], None]] = {
    made.__name__: made for made in (figures, neighbours, many, types, enormous, refuses, stalls)
}


def _tell_of_links(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    from services.ckms.agent.facts import CarrierFacts

    true = CarrierFacts.links
    CarrierFacts.links = lambda self: {"link": change(true(self)["link"])}  # type: ignore[method-assign]


def _encode(change: Callable[[bytes], bytes]) -> None:
    """Put something else on the wire for each link."""
    from keyhaul.agents.gnmi import values

    true = values.encoded

    def encoded(path: Any, *rest: Any, **more: Any) -> bytes:
        value = true(path, *rest, **more)
        return change(value) if len(path) == 3 and path[2].name == "link" else value

    setattr(values, "encoded", encoded)  # noqa: B010


def _before_statements(act: Callable[[], Awaitable[None]]) -> None:
    """Do something before a Set is looked at that has more than withdrawals."""
    from keyhaul.agents.statements import Statement, Withdrawal
    from services.ckms.agent.writer import StatementWriter

    write = StatementWriter.write

    async def acting(self: StatementWriter, edits: Sequence[Any]) -> Any:
        stated = [msgspec.json.decode(edit.value["body"], type=Statement).says for edit in edits]
        if not all(isinstance(says, Withdrawal) for says in stated):
            await act()
        return await write(self, edits)

    StatementWriter.write = acting  # type: ignore[method-assign]


def main() -> int:
    """Install the behaviour, then run what a user would run."""
    how, *arguments = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    WAYS[how]()
    from keyhaul.command.main import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
