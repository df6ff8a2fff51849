"""The controller's statements that are in force at one CKMS.

Sans-IO: time is an argument (`now`, seconds of the node's own time, see `own_time`). Every transition that changes
what is in force comes in two steps: `consider` and the like return a `Change`; once the store has it, `take` puts it
into the forwarding table. So a crash in between leaves a node that refuses at least what it accepted.

A statement begins with its acceptance and ends when it is withdrawn, when a later one takes its place, or when its
lifetime is over. Over is no end while no controller that leads is heard: it lives on to the operator's hard limit,
counted from acceptance like the lifetime, which is cut to it. What remains then is what the configuration says.

(Epoch, serial) of what is accepted only grows. What an earlier leader said stays in force until a later one says
otherwise, but from the first statement of the later one on nothing more of the earlier one is accepted.

Where this node cannot know how far serials had grown, because its store is new, is a copy from before, or was kept
under other keys, it is in doubt: a statement is accepted only if it names the incarnation of this very process, so
that it was not signed before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

from keyhaul.agents.signing import SignedStatement, Verifier
from keyhaul.agents.statements import (
    Statement,
    StatementRefusal,
    StatementRefused,
)
from keyhaul.identity.keys import fingerprint
from services.ckms.forwarding import Entry, ForwardingTable, InvalidForwarding, Path
from services.ckms.held import Change, Dropped, Effects, Held, HighWater, Kept, Place, place_of, row_of

MAXIMUM_SET = 1_024
"""Statements that are accepted at once."""

MAXIMUM_HELD = 65_536
"""Statements in force."""

SILENCE = 30.0
"""Seconds after which a controller that says nothing is not there. (One that does not lead can renew nothing.)"""

ADOPTION = 120.0
"""Seconds for which a controller that is back may renew what is over before it ends."""


Verified = tuple[Statement, SignedStatement]


@dataclass(slots=True)
class _Contact:
    """When controllers were heard, own time."""

    since: float
    last: float


class Installed:
    """What is in force, in a forwarding table beside what the configuration says.

    Args:
        own: this CKMS's service id.
        incarnation: of this process; random.
        keys: the pinned statement keys of the controllers.
        table: holds what the configuration says; of the rest nobody else changes anything from now on.
        hard_limit: seconds.
    """

    def __init__(
        self,
        own: str,
        incarnation: str,
        keys: Sequence[MLDSA65PublicKey],
        table: ForwardingTable,
        *,
        hard_limit: float,
    ) -> None:
        self.incarnation = incarnation
        self.high = HighWater()
        self._own = own
        self._keys = tuple(keys)
        self._table = table
        self._hard_limit = hard_limit
        self._held: dict[int, Held] = {}
        self._places: dict[Place, int] = {}
        self._rows: dict[int, Entry | Path] = {}
        self._contact: _Contact | None = None
        self._fresh: tuple[int, int] | None = None

    @property
    def held(self) -> Mapping[int, Held]:
        """What is in force or drains, by serial."""
        return self._held

    @property
    def hard_limit(self) -> float:
        """Seconds."""
        return self._hard_limit

    @property
    def fingerprints(self) -> frozenset[str]:
        """Of the pinned keys."""
        return frozenset(map(fingerprint, self._keys))

    def restore(self, kept: Kept, now: float) -> tuple[Change, list[Dropped]]:
        """Verify what was kept and put it in force; return what the store should forget, and what was dropped.

        How far serials had grown under keys of which none is pinned any more says nothing of the present ones.
        """
        self.high = kept.high if kept.keys & self.fingerprints else HighWater()
        dropped: list[Dropped] = []
        over: list[int] = []
        verifier = Verifier(self._keys)
        for one in kept.statements:
            try:
                statement = verifier.verify(one.signed)
                self._check_address(statement, one.serial)
                held = Held(statement, one.signed, one.accepted, one.drained)
                if self._is_over(held, now):
                    over.append(one.serial)
                else:
                    self._exchange((), (held,))
            except StatementRefused as refused:
                dropped.append(Dropped(one.serial, refused.refusal))
            except InvalidForwarding:
                dropped.append(Dropped(one.serial, StatementRefusal.UNFIT))
        return Change(self.high, ended=(*over, *(one.serial for one in dropped))), dropped

    def verified(self, offered: Mapping[int, SignedStatement]) -> list[Verified]:
        """Check the signatures of statements, each under its serial; in the order of serials.

        It reads and changes nothing of what is in force: it may run in a thread.

        Raises:
            StatementRefused: of one of them, or too many.
        """
        if not 0 < len(offered) <= MAXIMUM_SET:
            raise StatementRefused(StatementRefusal.TOO_MANY, f"1 to {MAXIMUM_SET} statements are accepted at once")
        found: list[Verified] = []
        verifier = Verifier(self._keys)
        for serial, signed in sorted(offered.items()):
            statement = verifier.verify(signed)
            self._check_address(statement, serial)
            found.append((statement, signed))
        return found

    def consider(self, offered: Iterable[Verified], now: float) -> Change:
        """Find out what follows from statements that came together: all of them take effect, or none.

        Raises:
            StatementRefused: one of them cannot be accepted, so none is.
        """
        effects = Effects(self._held, self._places)
        high = self.high
        epochs = set()
        fresh: tuple[int, int] | None = None
        for statement, signed in offered:
            self._check_order(statement, high)
            epochs.add(statement.epoch)
            high = HighWater(*statement.number, doubt=high.doubt)
            effects.apply(Held(statement, signed, now))
            if fresh is None and statement.incarnation is not None:
                fresh = statement.number
        if len(epochs) != 1:
            raise StatementRefused(StatementRefusal.OLD_EPOCH, "only statements of one epoch are accepted together")
        written, ended = effects.written, effects.ended
        if len(self._held) + len(written) - len(ended) > MAXIMUM_HELD:
            raise StatementRefused(StatementRefusal.TOO_MANY, f"{MAXIMUM_HELD} statements are in force")
        try:
            self._table.check(*self._rows_of(ended, written))
        except InvalidForwarding as invalid:
            raise StatementRefused(StatementRefusal.UNFIT, str(invalid)) from None
        return Change(replace(high, doubt=False), written, ended, fresh)

    def elapse(self, now: float) -> Change | None:
        """What has come to its end by now, None where nothing has."""
        over = tuple(serial for serial, held in self._held.items() if self._is_over(held, now))
        return Change(self.high, ended=over) if over else None

    def doubt(self) -> Change:
        """This node's store turned out to be older than what another node knows of it.

        What was signed for this very process, and what was accepted after that, holds; nothing else does.
        """
        fresh = self._fresh
        ended = (serial for serial, held in self._held.items() if fresh is None or held.statement.number < fresh)
        return Change(replace(self.high, doubt=fresh is None), ended=tuple(ended))

    def after(self, change: Change) -> Iterator[Held]:
        """What is held once a change is taken."""
        gone = {*change.ended, *(held.statement.serial for held in change.written)}
        yield from (held for serial, held in self._held.items() if serial not in gone)
        yield from change.written

    def take(self, change: Change) -> None:
        """Put a change in force; nothing else was taken since it was returned."""
        self._exchange(change.ended, change.written)
        self.high = change.high
        self._fresh = self._fresh or change.fresh

    def heard(self, now: float) -> None:
        """A controller that leads was heard: it answered, or what it said was accepted."""
        if self._contact is None or now - self._contact.last > SILENCE:
            self._contact = _Contact(now, now)
        self._contact.last = now

    def in_contact(self, now: float) -> bool:
        """Whether a controller that leads was heard of late."""
        return self._contact is not None and now - self._contact.last <= SILENCE

    def _is_over(self, held: Held, now: float) -> bool:
        if now - held.accepted >= self._hard_limit:
            return True
        if held.drained is not None:
            return now >= held.drained
        if now < held.expires or self._contact is None or not self.in_contact(now):
            return False
        return now - self._contact.since >= ADOPTION or held.expires >= self._contact.since

    def _check_address(self, statement: Statement, serial: int) -> None:
        if statement.serial != serial:
            raise _refused(StatementRefusal.MALFORMED, f"it stands under serial {serial}", statement)
        if statement.node != self._own:
            raise _refused(StatementRefusal.OTHER_NODE, f"it is for {statement.node}", statement)

    def _check_order(self, statement: Statement, high: HighWater) -> None:
        if statement.epoch < high.epoch:
            raise _refused(StatementRefusal.OLD_EPOCH, f"epoch {statement.epoch} is over: {high.epoch} is", statement)
        if statement.number <= high.number:
            raise _refused(StatementRefusal.REPLAYED, f"{high.serial} was accepted in this epoch", statement)
        if statement.incarnation not in ((self.incarnation,) if high.doubt else (None, self.incarnation)):
            raise _refused(StatementRefusal.NOT_FRESH, "it does not name this incarnation", statement)

    def _exchange(self, ended: tuple[int, ...], written: tuple[Held, ...]) -> None:
        """Take statements out of force and others in.

        Raises:
            InvalidForwarding: they do not fit; nothing has changed.
        """
        self._table.amend(*self._rows_of(ended, written))
        for serial in ended:
            del self._rows[serial]
            del self._places[place_of(self._held.pop(serial))]
        for held in written:
            serial = held.statement.serial
            self._held[serial] = held
            self._places[place_of(held)] = serial
            self._rows[serial] = row_of(held)

    def _rows_of(
        self, ended: tuple[int, ...], written: tuple[Held, ...]
    ) -> tuple[list[Entry | Path], list[Entry | Path]]:
        """The rows that go, and those that come in their place."""
        gone = {*ended, *(held.statement.serial for held in written)}
        return [self._rows[serial] for serial in gone if serial in self._rows], [row_of(held) for held in written]


def _refused(refusal: StatementRefusal, message: str, statement: Statement) -> StatementRefused:
    return StatementRefused(refusal, message, serial=statement.serial)
