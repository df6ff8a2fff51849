"""A controller that signs statements for one CKMS, and a store that keeps what that CKMS is told to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from keyhaul.agents.signing import SignedStatement, sign
from keyhaul.agents.statements import (
    EntryStatement,
    PathStatement,
    StatedHop,
    Statement,
    Withdrawal,
)
from keyhaul.identity.keys import generate
from services.ckms.forwarding import Entry, ForwardingTable, Path
from services.ckms.held import Change, HighWater, Kept, KeptStatement
from services.ckms.installed import Installed

OWN = "ckms-2"
NEIGHBOURS = ("ckms-1", "ckms-3", "ckms-4", "ckms-16")
KEY = generate(lambda count: b"\x01" * count)
THIEF = generate(lambda count: b"\x02" * count)


@dataclass(frozen=True)
class Configured:
    """What the configuration says."""

    entries: tuple[Entry, ...] = ()
    paths: tuple[Path, ...] = ()


NOTHING = Configured()

Says = EntryStatement | PathStatement | Withdrawal
Offer = dict[int, SignedStatement]


def entry(label: str, *, previous: str = "ckms-1", to: str | None = "ckms-3", **more: Any) -> EntryStatement:
    """Labels are told by one hexadecimal digit; the onward label is that of the entry, seen by the next hop."""
    onward = None if to is None else StatedHop(to, label * 16)
    return EntryStatement(label=label * 16, previous=previous, next=onward, rate=1000.0, burst=1000, **more)


def path(label: str, *, to: str = "ckms-3", rank: int = 0, **more: Any) -> PathStatement:
    fields: dict[str, Any] = {"destination": "ckms-9", "group": "0" * 32, "rate": 1000.0, "burst": 1000} | more
    return PathStatement(rank=rank, first=StatedHop(to, label * 16), **fields)


def withdrawal(*serials: int, drain: float = 0.0) -> Withdrawal:
    return Withdrawal(serials=serials, drain_s=drain)


@dataclass
class Leader:
    """Signs with growing serials."""

    epoch: int = 1
    serial: int = 0
    key: MLDSA65PrivateKey = KEY
    incarnation: str | None = None
    signed: list[tuple[Statement, SignedStatement]] = field(default_factory=list)
    """Everything that it ever signed."""

    def say(self, *says: Says, lifetime: int = 100, node: str = OWN) -> Offer:
        statements = [
            Statement(
                v=1,
                node=node,
                epoch=self.epoch,
                serial=serial,
                lifetime_s=lifetime,
                says=one,
                incarnation=self.incarnation,
            )
            for serial, one in enumerate(says, self.serial + 1)
        ]
        self.serial += len(says)
        signed = sign(statements, self.key)
        self.signed += zip(statements, signed, strict=True)
        return {statement.serial: one for statement, one in zip(statements, signed, strict=True)}


class Memory:
    """Keeps what a change says, as the store does."""

    def __init__(self, high: HighWater | None = None) -> None:
        self.high = HighWater(0, 0, doubt=False) if high is None else high
        self.rows: dict[int, KeptStatement] = {}

    def write(self, change: Change) -> None:
        self.high = change.high
        for serial in change.ended:
            self.rows.pop(serial, None)
        for held in change.written:
            serial = held.statement.serial
            self.rows[serial] = KeptStatement(serial, held.signed, held.accepted, held.drained)

    def kept(self, installed: Installed) -> Kept:
        return Kept(self.high, installed.fingerprints, tuple(self.rows.values()))


def make(
    configured: Configured = NOTHING,
    *,
    hard_limit: float = 1000.0,
    keys: Sequence[MLDSA65PrivateKey] = (KEY,),
    incarnation: str = "one",
    own: str = OWN,
) -> tuple[Installed, ForwardingTable]:
    """A node that has not read its store yet."""
    table = ForwardingTable(own, NEIGHBOURS, delivers=True)
    table.replace(configured.entries, configured.paths)
    public = [key.public_key() for key in keys]
    return Installed(own, incarnation, public, table, hard_limit=hard_limit), table


def accept(installed: Installed, memory: Memory, offer: Offer, now: float) -> None:
    change = installed.consider(installed.verified(offer), now)
    memory.write(change)
    installed.take(change)
