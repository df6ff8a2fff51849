"""Who leads: a lease in the database that one controller holds, renews and may lose. Sans-IO.

No clock is compared with another's, not even with the database's, which is a different one after a failover: only
durations count. The row of the lease names its holder, an epoch that grows with each change, and a *beat* that the
holder raises to renew. Whoever would take it over watches: when epoch and beat have stood still for a whole lease
since they were first seen, the lease has ended. The holder reckons from before it sent its last renewal, and stops a
margin earlier. What it sent was committed before anybody saw it, so it has stopped when somebody takes over, whatever
the delays, as long as clocks run at the same speed but for the margin.

A process that froze finds out from the clock, which must count suspended time too, before it acts again; what was on
its way then bears its old epoch, and is refused by those that it is for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terms:
    """Durations, in seconds. All controllers of a database have the same."""

    lease: float = 6.0
    """How long the lease lasts after a renewal."""
    renew: float = 1.5
    """How long after a renewal the next is sent; and how often others look."""
    margin: float = 1.0
    """How long before the end the holder stops acting."""

    def __post_init__(self) -> None:
        if not 0 < self.margin <= self.lease / 2 or not 0 < self.renew <= (self.lease - self.margin) / 2:
            raise ValueError("a lease is at least twice its margin, and leaves time for two renewals before that")


@dataclass(frozen=True, slots=True)
class Row:
    """The lease as the database has it."""

    holder: str = ""
    """Random name of a process; empty: it was given back, or never held."""
    epoch: int = 0
    beat: int = 0
    address: str = ""
    """Where the holder serves."""


@dataclass(frozen=True, slots=True)
class Look:
    """Read the row."""


@dataclass(frozen=True, slots=True)
class Take:
    """Become the holder in the next epoch, provided that the row is still the one that was seen."""

    seen: Row


@dataclass(frozen=True, slots=True)
class Renew:
    """Raise the beat, provided that the row still names this process and epoch."""

    epoch: int


Step = Look | Take | Renew


class Lease:
    """One process's part. Ask `step` for what to do now, tell the outcome, and ask again after `pause`."""

    def __init__(self, own: str, terms: Terms, *, alone: bool = False) -> None:
        """Hold nothing yet.

        Args:
            own: random name of this process.
            terms: of the lease.
            alone: no other process can use the database: there is nobody to wait for.
        """
        self.own = own
        self.terms = terms
        self._alone = alone
        self._epoch: int | None = None
        self._ends = 0.0
        self._due = 0.0
        self._seen: Row | None = None
        self._since = 0.0
        self._current = False  # nothing was asked of the database since the row was seen

    def epoch(self, now: float) -> int | None:
        """The epoch in which this process leads, None while it may not act."""
        return self._epoch if self.remaining(now) > 0 else None

    def remaining(self, now: float) -> float:
        """Seconds for which it may act without another renewal."""
        return max(0.0, self._ends - now) if self._epoch is not None else 0.0

    def step(self, now: float) -> Step:
        """What to ask of the database now."""
        if self._epoch is not None and self.remaining(now) > 0:
            return Renew(self._epoch)
        self.lost()
        if self._current and self._seen is not None and self._may_take(self._seen, now):
            self._current = False
            return Take(self._seen)
        return Look()

    def pause(self, now: float) -> float:
        """Seconds until `step` is to be asked again."""
        if self.remaining(now) > 0:
            return max(0.0, min(self._due, self._ends) - now)
        if self._seen is None or not self._current:
            return self.terms.renew
        if self._may_take(self._seen, now):
            return 0.0
        return min(self.terms.renew, self._since + self.terms.lease - now)

    def looked(self, row: Row, now: float) -> None:
        """The row was read; `now` is after the answer came."""
        if self._seen is None or (row.holder, row.epoch, row.beat) != (
            self._seen.holder,
            self._seen.epoch,
            self._seen.beat,
        ):
            self._since = now
        self._seen = row
        self._current = True

    def taken(self, epoch: int, sent: float) -> None:
        """This process became the holder; the request left at `sent` or later."""
        self._epoch = epoch
        self.renewed(sent)

    def renewed(self, sent: float) -> None:
        """The lease was renewed; the request left at `sent` or later."""
        self._ends = sent + self.terms.lease - self.terms.margin
        self._due = sent + self.terms.renew

    def surpassed(self, epoch: int) -> None:
        """The holder leads in a later epoch from now on; the lease ends when it would have."""
        self._epoch = epoch

    def failed(self, now: float) -> None:
        """The database did not do what was asked, or nobody knows: another attempt soon, nothing gained meanwhile."""
        self._due = now + self.terms.renew / 3
        self._current = False

    def lost(self) -> None:
        """The row names another holder or epoch, or the lease ended: this process leads no more."""
        if self._epoch is not None:
            self._epoch, self._current = None, False

    def _may_take(self, row: Row, now: float) -> bool:
        free = self._alone or row.holder in ("", self.own)
        return free or now - self._since >= self.terms.lease
