"""What is reserved for each demand: taken before its paths are laid, kept in step with them, brought back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from controller.admission.admit import Admission
from controller.admission.reservations import hops_of
from controller.paths.compute import Path
from controller.steering.ledger import Ledger
from controller.steering.served import Served
from keyhaul.randomness import Source, identifier


class Reserving:
    """Takes and ends the leases of demands.

    Args:
        ledger: what is promised.
        source: draws ids.
    """

    def __init__(self, ledger: Ledger, source: Source) -> None:
        self._ledger = ledger
        self._source = source

    def hold(self, served: Served, admission: Admission) -> str | None:
        """Reserve what an admission needs beside what its demand has, or else in its place; return the lease's id.

        None: it needs nothing, or it is not possible; then the demand keeps what it has.
        """
        if not admission.link_rate:
            return None
        lease = admission.lease(identifier(self._source), served.expires)
        if self._ledger.reserve(lease):
            return lease.id
        current = served.current
        former = self._ledger.release(current.lease) if current else None
        if current is None or former is None:
            return None
        if self._ledger.reserve(lease):
            current.lease = None
            return lease.id
        if not self._ledger.reserve(former):
            current.lease = None
        return None

    def hold_again(self, served: Served, paths: Sequence[Path]) -> bool:
        """Reserve for these of the paths in force, for which nothing is reserved any more."""
        current = served.current
        assert current is not None, "paths are in force"
        lease = current.admission.lease(identifier(self._source), served.expires)
        if not self._ledger.reserve(replace(lease, hops=hops_of(paths))):
            return False
        current.lease = lease.id
        return True

    def adopt(self, served: Served, admission: Admission) -> str | None:
        """Reserve for paths that an earlier leader installed; what it had reserved stays where that is not possible:
        links of which nothing is known yet have nothing to spare.
        """
        former = self._ledger.reservations.leases_of(served.demand.id)
        lease = self.hold(served, admission)
        for one in former:
            if lease is None and admission.link_rate == one.rate and set(one.hops) >= set(hops_of(admission.paths)):
                lease = one.id
            else:
                self._ledger.release(one.id)
        return lease

    def extend(self, served: Served) -> None:
        """Let what a demand has reserved last as long as it does."""
        for generation in served.generations:
            if generation.lease:
                self._ledger.reservations.renew(generation.lease, served.expires)

    def end(self, demand: str) -> None:
        """Bring back all that is reserved for a demand."""
        for lease in self._ledger.reservations.release_demand(demand):
            self._ledger.stamp((lease,))
