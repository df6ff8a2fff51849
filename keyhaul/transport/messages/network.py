"""What the operator's tools ask of the controller: the network as it is, what is promised, what happened; quarantine.

Rates are bits per second, pools bits. Long lists come in pages, in the order of the plan; `version` tells of which view
of the network a page is, and grows whenever something in the view changes.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from keyhaul.transport.messages.base import Message

Name = Annotated[str, Meta(max_length=128)]
Names = Annotated[list[Name], Meta(max_length=10_000)]
Rate = Annotated[int, Meta(ge=0, le=10**15)]

LARGEST_PAGE = 1_000
LONGEST_WAIT_MS = 30_000


class Ask(Message, kw_only=True):
    """Tools to controller: how is the network, as a whole?"""


class Status(Message, kw_only=True):
    """The network and its controller in a few figures."""

    leads: bool
    """Whether this controller leads; one that stands by knows the network, but not what is promised."""
    epoch: int | None = None
    """In which it leads."""
    led_s: float = 0.0
    """For how many seconds it has led."""
    leader: str = ""
    """Where the leader serves, where that is known."""
    alone: bool = True
    """Whether there can be no other controller."""
    plan: int = 0
    """Version of the plan in force; 0: there is none."""
    version: int = 0
    """Of the view."""
    nodes: int = 0
    silent: list[str] = []
    """Nodes that tell nothing."""
    quarantined: dict[str, str] = {}
    """Nodes in quarantine, and why."""
    links: int = 0
    links_up: int = 0
    disagreements: int = 0
    demands: int = 0
    unserved: int = 0
    """Demands without a path."""
    position: int = 0
    """Number of the last event; what else is said here may be newer."""
    database: bool = True
    """Whether the controllers' database answers. While it does not, the position is unknown; nobody leads for long."""


class Page(Message, kw_only=True):
    """Tools to controller: a part of a list."""

    start: Annotated[int, Meta(ge=0)] = 0
    """How many to pass over."""
    most: Annotated[int, Meta(ge=1, le=LARGEST_PAGE)] = LARGEST_PAGE


class PageReply(Message, kw_only=True):
    """What the replies with a part of a list have in common."""

    version: int
    """Of the view."""
    total: int
    next: int | None = None
    """Where the list goes on; none: this was its end."""


class Said(Struct):
    """What somebody says."""

    who: str
    """A node, `plan`, or `most` for the bound of a figure."""
    what: str


class DisagreementFacts(Struct, omit_defaults=True):
    """Something that is not as planned, or not the same at both ends of a link."""

    kind: str
    """E.g. silent, one-sided, unplanned, suite, rate, nonsense."""
    subject: str
    """Id of the link or node."""
    said: list[Said] = []


class Disagreements(PageReply, kw_only=True):
    """All that is not as it should be, nodes first."""

    disagreements: list[DisagreementFacts]


class NodeFacts(Struct, omit_defaults=True, kw_only=True):
    """A planned CKMS."""

    id: str
    place: str = ""
    access: bool = True
    """Whether an AKMS stands beside it."""
    jurisdiction: str = ""
    quarantined: bool = False
    silent: bool = False
    """Whether it tells nothing fresh."""


class Nodes(PageReply, kw_only=True):
    """The planned nodes."""

    nodes: list[NodeFacts]


class DirectionFacts(Struct, kw_only=True):
    """One direction of a link, as it is believed to be."""

    sender: str
    rate: int
    """New link key, smoothed."""
    pool: int
    """For payload."""
    capacity: int
    reserved: int
    """What of the rate is promised."""


class LinkFacts(Struct, omit_defaults=True, kw_only=True):
    """A planned link, as it is believed to be."""

    id: str
    a: str
    b: str
    state: str
    """What was discovered: found, disagreeing, one-sided, missing or unknown."""
    up: bool
    quantum: bool = True
    """Whether QKD modules make its key."""
    suites: list[str] = []
    """Protections that plan and both ends allow."""
    risk_groups: list[str] = []
    km: float = 0.0
    latency_us: float = 0.0
    """One way."""
    qber: float | None = None
    directions: list[DirectionFacts]
    """From a, then from b."""
    disagreements: list[DisagreementFacts] = []


class Links(PageReply, kw_only=True):
    """The planned links."""

    links: list[LinkFacts]


class RefusalFacts(Struct, omit_defaults=True):
    """Why a demand is not served."""

    reason: str
    earliest_s: float | None = None
    """In how many seconds it could be, if reservations that end then are not renewed; none: nobody knows."""
    paths_found: int | None = None
    """Of class split: how many paths without a common node there are."""


class PathFacts(Struct, omit_defaults=True, kw_only=True):
    """A path of a demand."""

    rank: int
    """0 the first, then its backup; of class split, the number of the share."""
    nodes: list[str]
    links: list[str]
    state: str = ""
    """installing, installed or draining; empty where nothing is installed."""
    down: list[str] = []
    """Links of it that may not be used at this moment."""


class DemandFacts(Struct, omit_defaults=True, kw_only=True):
    """Keys to be relayed from one access node to another."""

    id: str
    source: str
    """The CKMS that keys are handed in at."""
    target: str
    service_class: str
    rate: int
    """Payload."""
    since_s: float
    """For how long it has had these paths."""
    paths: list[PathFacts] = []
    refusal: RefusalFacts | None = None
    """Why it has no paths, or not those that its class demands."""


class Demands(PageReply, kw_only=True):
    """Demands with their paths, the oldest first."""

    demands: list[DemandFacts]


class LeaseFacts(Struct, kw_only=True):
    """What a demand was promised."""

    demand: str
    service_class: str
    rate: int


class ReservationFacts(Struct, kw_only=True):
    """What is promised of one direction of a link."""

    link: str
    sender: str
    rate: int
    """New link key."""
    reserved: int
    leases: list[LeaseFacts]


class Reservations(PageReply, kw_only=True):
    """The directions of links of which something is promised."""

    reservations: list[ReservationFacts]


class AskEvents(Message, kw_only=True):
    """Tools to controller: what happened after event number `after`? Refused as `conflict` where it is forgotten."""

    after: Annotated[int, Meta(ge=0)]
    most: Annotated[int, Meta(ge=1, le=500)] = 500
    wait_ms: Annotated[int, Meta(ge=0, le=LONGEST_WAIT_MS)] = 0
    """How long to wait for the first."""


class EventFacts(Struct, kw_only=True):
    """Something that happened."""

    number: int
    """Without gaps."""
    at: int
    """Seconds since 1970, by the clock of the controller's database."""
    kind: str
    subject: str
    """Id of the node, link or demand."""
    facts: dict[str, Any]


class Events(Message, kw_only=True):
    """The next events in order, none if there were none in time."""

    events: list[EventFacts]


class Quarantine(Message, kw_only=True):
    """Operator to controller: keep this node out of all paths until it is released, and burn what crossed it."""

    node: Name
    reason: Annotated[str, Meta(min_length=1, max_length=256)]


class Quarantined(Message, kw_only=True):
    """Done."""

    exposed: int | None = None
    """Demands (source, target and class) of which keys crossed the node; None: an older controller, which burns
    nothing."""


class Release(Message, kw_only=True):
    """Operator to controller: this node may be in paths again."""

    node: Name


class Released(Message, kw_only=True):
    """Done."""

    was_quarantined: bool
