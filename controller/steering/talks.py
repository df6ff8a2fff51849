"""What is said to each node: one thing at a time, and nothing to a node of which it is not known what it has.

    AWAY       no telemetry yet                        -- it appears -->               DOUBTED
    DOUBTED    an announcement is due                  -- it is confirmed -->          ANNOUNCED
    ANNOUNCED  reading back is due                     -- it is found -->              READY
    READY      statements are taken, many in one Set   -- refusal, silence, restart -> DOUBTED

An announcement is an empty withdrawal. It has a higher serial than all that was sent before, so that once it is
accepted nothing of that, nor of an earlier leader, takes effect any more: what is read back then stays true.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import replace
from itertools import count, islice

from controller.steering.conversation import (
    FIRST_PAUSE,
    Bundle,
    Conversation,
    Held,
    Phase,
    Placed,
    Reading,
    Sent,
    compared,
    packed,
)
from controller.steering.effects import Effect, Forget, InForce, Note, Read, Recorded, Say, Tell
from controller.steering.events import Event
from controller.steering.routes import ENTRY_LIFETIME, LIFETIME
from controller.steering.turns import Turns
from keyhaul.agents.statements import EntryStatement, StatementRefusal, Withdrawal

DRAIN = 60.0
"""Seconds for which what is on its way may use what is withdrawn: no batch is under way for longer."""

LONGEST_PAUSE = 15.0
"""Seconds before a node that did not answer is tried again; they double up to that."""


class Talks:
    """The conversations with all nodes.

    Args:
        emit: takes the effects.
    """

    def __init__(self, emit: Callable[[Effect], None]) -> None:
        self._emit = emit
        self._talks: dict[str, Conversation] = {}
        self._busy: dict[int, Conversation] = {}
        self._turns = Turns()
        self._numbers = count(1)
        self._leading = False

    def lead(self, records: Iterable[Recorded], now: float) -> None:
        """Forget what was said, believe what is recorded, and announce the new epoch to every node first."""
        self.rest()
        self._leading = True
        for one in records:
            # How much of its lifetime is left will be found; until then, all of it.
            lifetime = ENTRY_LIFETIME if isinstance(one.says, EntryStatement) else LIFETIME
            say = Say(one.says, lifetime, one.demand, one.rank)
            self._talk(one.node).held[one.serial] = Held(one.serial, say, 0, now + lifetime, unsure=True)

    def rest(self) -> None:
        """Say nothing more; outcomes that come yet mean nothing."""
        self._leading = False
        self._busy.clear()
        for node, talk in self._talks.items():
            phase = Phase.DOUBTED if talk.incarnation else Phase.AWAY
            self._talks[node] = Conversation(node, phase, talk.incarnation)
        self._turns.restart(self._talks.values())

    def appeared(self, node: str, incarnation: str, now: float) -> None:
        """A node's process can be talked to."""
        talk = self._talk(node)
        if talk.phase is not Phase.AWAY and talk.incarnation == incarnation:
            talk.retry_at = min(talk.retry_at, now)
            return
        talk.incarnation = incarnation
        talk.phase = Phase.DOUBTED
        talk.stale = talk.busy is not None
        talk.retry_at, talk.pause = now, FIRST_PAUSE

    def waits(self, node: str, laying: int) -> bool:
        """Whether something of that has not been said yet."""
        talk = self._talks.get(node)
        return talk is not None and any(bundle.laying == laying for bundle in talk.queue)

    def gone(self, node: str) -> None:
        """A node is no longer planned: nothing of it counts any more."""
        talk = self._talks.pop(node, None)
        if talk is not None:
            if talk.busy is not None:
                del self._busy[talk.busy]
            self._turns.gone(talk)
            self._forget(talk.held)

    def is_ready(self, node: str) -> bool:
        """Whether a node takes statements."""
        talk = self._talks.get(node)
        return talk is not None and talk.phase is Phase.READY

    def is_settled(self, node: str) -> bool:
        """Whether it is known what a node has, and nothing of that is to be taken back."""
        return self.is_ready(node) and not self._talks[node].withdraws

    @property
    def nodes(self) -> tuple[str, ...]:
        """Those that were heard of."""
        return tuple(self._talks)

    def held(self, statements: Iterable[tuple[str, int]]) -> Iterator[tuple[str, Held]]:
        """Those of the statements, by node and serial, that nodes have, or may have, and are to keep."""
        for node, serial in statements:
            talk = self._talks.get(node)
            held = talk.held.get(serial) if talk else None
            if held is not None and held.ending is None:
                yield node, held

    def serials(self, node: str) -> Set[int]:
        """Of all that a node has, or may have."""
        talk = self._talks.get(node)
        return talk.held.keys() if talk else set()

    def say(self, node: str, bundle: Bundle) -> None:
        """Bring statements to a node when it is ready."""
        self._talk(node).queue.append(bundle)

    def withdraw(self, statements: Iterable[tuple[str, int]], drain: float) -> None:
        """Take statements back, by node and serial, as soon as their nodes can be talked to."""
        for node, serial in statements:
            talk = self._talk(node)
            held = talk.held.get(serial)
            if held is not None and held.ending is None:
                held.ending = talk.ending[serial] = drain

    def is_under_way(self, node: str, laying: int) -> bool:
        """Whether something of that was sent, and nothing is known of it yet."""
        talk = self._talks.get(node)
        return talk is not None and any(bundle.laying == laying for bundle in (talk.sent or Sent()).bundles)

    def perhaps(self, node: str, laying: int) -> list[int]:
        """Serials of what the node may have of that, though it is not sure."""
        talk = self._talks.get(node)
        return [] if talk is None else [one.serial for one in talk.held.values() if one.unsure and one.laying == laying]

    def cancel(self, laying: int) -> None:
        """Do not say what is part of that and was not said yet."""
        for talk in self._talks.values():
            if any(bundle.laying == laying for bundle in talk.queue):
                talk.queue = deque(bundle for bundle in talk.queue if bundle.laying != laying)

    def busy_with(self, number: int) -> str:
        """The node that a sending or reading is for; empty where its outcome means nothing any more."""
        talk = self._busy.get(number)
        return "" if talk is None else talk.node

    def confirmed(self, sending: int, serials: Sequence[int], now: float) -> list[Placed]:
        """The node has accepted what was sent."""
        talk, sent = self._returned(sending)
        if talk is None:
            return []
        talk.pause = FIRST_PAUSE
        if sent.announces:
            talk.phase = Phase.DOUBTED if talk.stale else Phase.ANNOUNCED
            return []
        self._withdrawn(talk, sent.withdrawn)
        placed = []
        left = iter(serials[sent.withdrawals :])
        for bundle in sent.bundles:
            own = tuple(islice(left, len(bundle.says)))
            self._hold(talk, bundle, own, now, unsure=False)
            self._withdrawn(talk, bundle.replaced)
            placed.append(Placed(talk.node, bundle, own))
        return placed

    def refused(
        self, sending: int, serials: Sequence[int], reason: StatementRefusal | None, now: float
    ) -> list[Bundle]:
        """The node accepted nothing of what was sent; return what will not be sent again."""
        talk, sent = self._returned(sending)
        if talk is None:
            return []
        self._forget(serials)
        talk.ending |= sent.withdrawn
        if len(sent.bundles) + bool(sent.withdrawn) > 1 and reason in (None, *_OF_ONE):
            talk.queue.extendleft(replace(bundle, alone=True) for bundle in reversed(sent.bundles))
            return []
        self._doubt(talk, now, refused=reason.value if reason else "refused")
        return list(sent.bundles)

    def unreachable(self, sending: int, serials: Sequence[int], now: float) -> list[Bundle]:
        """It is not known whether the node accepted what was sent; return that."""
        talk, sent = self._returned(sending)
        if talk is None:
            return []
        talk.ending |= sent.withdrawn
        left = iter(serials[sent.withdrawals :])
        for bundle in sent.bundles:
            self._hold(talk, bundle, tuple(islice(left, len(bundle.says))), now, unsure=True)
        self._doubt(talk, now)
        return list(sent.bundles)

    def found(self, reading: int, incarnation: str, in_force: Iterable[InForce], now: float) -> Reading | None:
        """What a node has; None where that says nothing, because its process is another one by now."""
        talk, _ = self._returned(reading)
        if talk is None:
            return None
        if talk.phase is not Phase.ANNOUNCED or incarnation != talk.incarnation:
            talk.phase = Phase.DOUBTED
            return None
        lost, settled, unknown = compared(talk, in_force, now)
        self._forget([held.serial for held in lost])
        talk.ending |= dict.fromkeys(unknown, DRAIN)
        self._turns.greeted(talk)
        talk.phase, talk.pause = Phase.READY, FIRST_PAUSE
        if unknown:
            self._emit(Note(Event.UNKNOWN, talk.node, {"statements": len(unknown)}))
        if talk.unready:
            talk.unready = False
            self._emit(Note(Event.READY, talk.node))
        return Reading(talk.node, tuple(held for held in lost if held.ending is None), tuple(settled))

    def unread(self, reading: int, now: float) -> None:
        """A node could not be read."""
        talk, _ = self._returned(reading)
        if talk is not None:
            self._doubt(talk, now)

    def flush(self, now: float) -> None:
        """Say what can be said now."""
        if not self._leading:
            return
        for talk in self._turns.due(now):
            self._go_on(talk)

    def _go_on(self, talk: Conversation) -> None:
        match talk.phase:
            case Phase.DOUBTED:
                self._tell(talk, Sent(announces=True), (Say(Withdrawal(serials=()), LIFETIME),))
            case Phase.ANNOUNCED:
                talk.busy = next(self._numbers)
                self._busy[talk.busy] = talk
                self._emit(Read(talk.busy, talk.node))
            case Phase.READY if talk.queue or talk.ending:
                self._tell(talk, *packed(talk))
            case _:
                pass

    def _tell(self, talk: Conversation, sent: Sent, says: tuple[Say, ...]) -> None:
        talk.busy, talk.sent, talk.stale = next(self._numbers), sent, False
        self._busy[talk.busy] = talk
        self._emit(Tell(talk.busy, talk.node, talk.incarnation, says))

    def _returned(self, number: int) -> tuple[Conversation | None, Sent]:
        talk = self._busy.pop(number, None)
        if talk is None:
            return None, Sent()
        sent, talk.busy, talk.sent = talk.sent or Sent(), None, None
        self._turns.stir(talk)
        return talk, sent

    def _doubt(self, talk: Conversation, now: float, **facts: str) -> None:
        self._turns.greeted(talk)
        talk.phase = Phase.DOUBTED
        talk.retry_at = now + talk.pause
        talk.pause = min(LONGEST_PAUSE, 2 * talk.pause)
        if not talk.unready:
            talk.unready = True
            self._emit(Note(Event.UNREADY, talk.node, facts))

    def _hold(self, talk: Conversation, bundle: Bundle, serials: Sequence[int], now: float, *, unsure: bool) -> None:
        for serial, say in zip(serials, bundle.says, strict=False):
            if not isinstance(say.says, Withdrawal):
                talk.held[serial] = Held(serial, say, bundle.laying, now + say.lifetime_s, unsure)

    def _withdrawn(self, talk: Conversation, serials: Iterable[int]) -> None:
        gone = [serial for serial in serials if talk.held.pop(serial, None) is not None]
        for serial in gone:
            talk.ending.pop(serial, None)
        self._forget(gone)

    def _forget(self, serials: Iterable[int]) -> None:
        if known := tuple(serials):
            self._emit(Forget(known))

    def _talk(self, node: str) -> Conversation:
        talk = self._talks.setdefault(node, Conversation(node))
        self._turns.stir(talk)
        return talk


_OF_ONE = (StatementRefusal.UNFIT, StatementRefusal.TOO_MANY, StatementRefusal.MALFORMED, StatementRefusal.UNKNOWN)
"""Refusals for which one statement of several may be to blame."""
