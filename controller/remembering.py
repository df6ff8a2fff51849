"""What a term has remembered in the database, and what it finds there when it begins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import Connection

from controller.installing import Signed
from controller.state import crossings, demands, events, installed
from controller.state.crossings import Crossed
from controller.steering.effects import Confirm, Effect, Ended, Forget, Memory, Note, Read, Recorded, Remember, Tell
from keyhaul.agents.statements import Statement, Withdrawal
from keyhaul.randomness import identifier


@dataclass(slots=True)
class Batch:
    """Effects that are remembered together, in their order. Written twice, they are there once."""

    effects: tuple[Effect, ...] = ()
    signed: tuple[Signed, ...] = ()
    """The statements that are about to be sent."""
    identities: dict[int, str] = field(init=False)
    """Of the events, by their places among the effects."""

    def __post_init__(self) -> None:
        notes = [place for place, effect in enumerate(self.effects) if isinstance(effect, Note)]
        self.identities = {place: identifier() for place in notes}

    def __bool__(self) -> bool:
        """Whether there is anything to remember."""
        return any(not isinstance(effect, Read | Tell) for effect in self.effects) or any(
            any(one.rows) for one in self.signed
        )

    @classmethod
    def unsaid(cls, effects: Iterable[Effect]) -> Batch:
        """What is to be remembered of effects of which nothing will be sent any more."""
        return cls(tuple(effect for effect in effects if not isinstance(effect, Read | Tell)))

    def write(self, connection: Connection) -> None:
        """Write it."""
        rows = {one.tell.sending: tuple(one.rows) for one in self.signed}
        for place, effect in enumerate(self.effects):
            match effect:
                case Remember(promise, crossed):
                    demands.admit(connection, promise)
                    crossings.record(connection, promise, [Crossed(*one) for one in crossed])
                case Ended(demand):
                    crossings.end(connection, [demand])
                    demands.end(connection, [demand])
                case Confirm(serials):
                    installed.confirm(connection, serials)
                case Forget(serials):
                    installed.forget(connection, serials)
                case Note(kind, subject, facts):
                    events.tell(connection, kind, subject, facts, self.identities[place])
                case Tell(sending):
                    about = rows.get(sending, ())
                    installed.forget(connection, [one.serial for one in about])
                    installed.record(connection, about)
                case Read():
                    pass


def remembered(connection: Connection) -> Memory:
    """What earlier leaders recorded."""
    statements = []
    for row in installed.load(connection):
        says = msgspec.json.decode(row.body, type=Statement).says
        if not isinstance(says, Withdrawal):
            statements.append(Recorded(row.serial, row.node, row.demand, row.rank, says))
    return Memory(tuple(demands.load(connection)), tuple(statements))
