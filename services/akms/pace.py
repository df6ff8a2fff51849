"""How often and how patiently an AKMS does what no message asks for; seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """Intervals and waits."""

    changes: float = 5.0
    """Between two polls of AAA for changes."""
    accounting: float = 0.2
    """How long usage is collected before it is sent."""
    accounting_retry: float = 5.0
    """Between attempts to reach AAA with usage."""
    backoff: float = 0.05
    """First wait after a failed call; doubled up to `backoff_limit`."""
    backoff_limit: float = 2.0
    call: float = 5.0
    """Longest wait for one answer of another service."""
    authorise: float = 2.0
    """Longest wait for AAA's answer before what is left of older grants is used."""
    patience: float = 10.0
    """How long a transfer is repeated beyond the time that its asker has."""
    over: float = 90.0
    """After a start: when every request that an earlier process of this AKMS took on is over at its asker."""
    trace_limit: float = 30.0
    """Longest wait between two questions about batches of which there is no record."""
    settle: float = 0.1
    """How long settled batches are collected before the UKMSs are told."""
    generations: float = 1.0
    """How long what UKMSs tell of their stores is collected before it is written down."""
    forgotten: float = 3_000.0
    """After the end of the master's copies: when its UKMS may have forgotten a batch (it keeps a row for an hour)."""
    purge: float = 10.0
    """Between purges of what expired."""
