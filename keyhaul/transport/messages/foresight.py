"""What the operator's tools ask of the controller beforehand: why a path, what if something fails, or the plan changes.

Rates are bits per second, pools bits. Nothing is changed by any of it.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from keyhaul.transport.messages.base import Message
from keyhaul.transport.messages.network import Name, Names, PathFacts, Rate, RefusalFacts


class ConstraintFacts(Struct, omit_defaults=True, kw_only=True, frozen=True):
    """What a path must keep to beyond what its class demands."""

    excluded_nodes: Names = []
    excluded_links: Names = []
    excluded_risk_groups: Names = []
    jurisdictions: Names | None = None
    """None: anywhere."""
    maximum_hops: Annotated[int, Meta(ge=1, le=10_000)] | None = None


class Explain(Message, kw_only=True):
    """Tools to controller: which path would a new demand get, why this one, and why not the others?"""

    source: Name
    """The CKMS that keys are handed in at."""
    target: Name
    service_class: Name
    rate: Rate = 0
    """Payload."""
    constraints: ConstraintFacts = ConstraintFacts()
    count: Annotated[int, Meta(ge=0, le=8)] = 4
    """How many of those that weigh more, and of those that are not allowed, to tell of."""


class HopFacts(Struct, omit_defaults=True, kw_only=True):
    """A hop of a path as it was judged."""

    link: str
    origin: str
    to: str
    weight: int
    rate: int
    spare: int
    """What of the rate is not promised."""
    pool: int
    capacity: int
    obstacle: str = ""
    """Why it cannot be in the path, if so."""


class CandidateFacts(Struct, kw_only=True):
    """A path that was looked at."""

    verdict: str
    reason: str
    weight: int
    nodes: list[str]
    hops: list[HopFacts]


class Explained(Message, kw_only=True):
    """What was decided, and all that was looked at."""

    version: int
    policy: str
    admitted: list[PathFacts] = []
    """The paths that the demand would get; none: it would be refused."""
    refusal: RefusalFacts | None = None
    price: float = 0.0
    """Bits of link key for each bit of key relayed while nothing fails."""
    undivided: float = 0.0
    """Of class split: what it would be over the best single path."""
    shared: list[str] = []
    """Links, risk groups and nodes that primary and backup share."""
    candidates: list[CandidateFacts] = []
    would_open: list[str] = []
    """Constraints each of which alone is in the way."""


class WhatIf(Message, kw_only=True):
    """Tools to controller: these fail together; who is affected, do they still fit? Nothing is changed."""

    nodes: Names = []
    links: Names = []
    risk_groups: Names = []


class OutcomeFacts(Struct, omit_defaults=True, kw_only=True):
    """What would become of one demand that is affected."""

    demand: str
    source: str
    target: str
    service_class: str
    rate: int
    fate: str
    """protected (goes on at once, and fits again whole), weakened (goes on at once, with less than its class demands),
    rerouted (stops until new paths are installed), lost (fits nowhere)."""
    before: list[PathFacts] = []
    after: list[PathFacts] = []
    """The paths that it would have in the end."""
    refusal: RefusalFacts | None = None


class Impact(Message, kw_only=True):
    """Who would be affected."""

    version: int
    demands: int
    """How many there are that have paths."""
    broken: int
    """How many of them have none that works even now; they are not affected further."""
    fates: dict[str, int]
    """How many of them meet each fate; those that are in none are untouched."""
    outcomes: list[OutcomeFacts]
    """The worst first."""
    left_out: int = 0
    """Outcomes that are not listed."""
    islands: list[list[str]] = []
    """Access nodes that would reach one another, where not all do; the largest group first."""


class PlannedNodeFacts(Struct, kw_only=True, omit_defaults=True):
    """A planned CKMS of a changed description."""

    id: Name
    access: bool = True
    jurisdiction: Name = ""
    place: Name = ""
    target: Annotated[str, Meta(max_length=256)] = ""


class PlannedLinkFacts(Struct, kw_only=True, omit_defaults=True):
    """A planned link of a changed description."""

    id: Name
    a: Name
    b: Name
    quantum: bool = True
    rate: Rate = 0
    capacity: Rate = 0
    suites: Names = []
    risk_groups: Names = []
    km: float = 0.0


class DryRun(Message, kw_only=True):
    """Tools to controller: this were the plan; what would change, who would be affected? Nothing is changed."""

    nodes: Annotated[list[PlannedNodeFacts], Meta(max_length=50_000)]
    links: Annotated[list[PlannedLinkFacts], Meta(max_length=200_000)]


class ChangeFacts(Struct, kw_only=True, omit_defaults=True):
    """One difference of two plans."""

    what: str
    """node or link"""
    id: str
    change: str
    """added, removed or changed"""
    fields: dict[str, list[str]] = {}
    """Of what changed: each field's value before and after."""


class Rehearsed(Impact, kw_only=True):
    """What a changed description would do."""

    changes: list[ChangeFacts]
    changes_left_out: int = 0
