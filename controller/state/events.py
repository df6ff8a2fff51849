"""What happened, numbered without gaps in the order of commits: a snapshot with its number, then what came after.

The number is counted in the transaction that the event tells of, so that who read the state together with
`position`, and then everything `after` it, has missed nothing and sees nothing twice. An event has an identity too,
drawn before it is written: a transaction of unknown outcome may be run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from controller.state.clock import wall
from controller.state.counters import add, value
from controller.state.schema import EVENT, events

KEPT = 100_000
"""Events; older ones are dropped, `PORTION` at a time."""

PORTION = 500


class Forgotten(Exception):
    """Events after that number are not kept any more, or never were: begin with a snapshot."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""

    number: int
    at: int
    """Seconds since 1970, by the database's clock."""
    kind: str
    """E.g. ``link-down``."""
    subject: str
    """Id of the node, link or demand."""
    facts: Mapping[str, Any]


def tell(connection: Connection, kind: str, subject: str, facts: Mapping[str, Any], identity: str) -> int:
    """Record an event, unless one of that identity is recorded; return its number."""
    known = connection.execute(select(events.c.number).where(events.c.identity == identity)).scalar_one_or_none()
    if known is not None:
        return int(known)
    number = add(connection, EVENT)
    row = {
        "number": number,
        "at": int(wall(connection)),
        "kind": kind,
        "subject": subject,
        "facts": dict(facts),
        "identity": identity,
    }
    connection.execute(insert(events).values(row))
    if number % PORTION == 0:
        connection.execute(delete(events).where(events.c.number <= number - KEPT))
    return number


def position(connection: Connection) -> int:
    """The number of the last event; what else the transaction reads is the state after it."""
    return value(connection, EVENT)


def after(connection: Connection, number: int, most: int = PORTION) -> list[Event]:
    """The next events after a number, in order.

    Raises:
        Forgotten: some of them are gone, or the number was never given.
    """
    last = position(connection)
    first = connection.execute(select(func.min(events.c.number))).scalar_one()
    if not (last if first is None else first - 1) <= number <= last:
        raise Forgotten(f"events after {number} are not kept")
    query = select(events).where(events.c.number > number).order_by(events.c.number).limit(most)
    return [Event(row.number, row.at, row.kind, row.subject, row.facts) for row in connection.execute(query)]
