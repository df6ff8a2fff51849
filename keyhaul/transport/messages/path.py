"""What a CKMS at an access node asks of the controller: a way to another one, and what of its keys is exposed.

No user, AKMS or key is named in it. What follows from a request comes by gNMI: signed statements.
"""

from __future__ import annotations

from enum import StrEnum

from keyhaul.transport.messages.base import Message
from keyhaul.transport.messages.relay import Exposure


class PathRefusal(StrEnum):
    """The closed list of reasons for which there is no path."""

    NOT_LEADER = "not-leader"
    """Another controller leads: ask that one."""
    UNKNOWN_DESTINATION = "unknown-destination"
    """It is no CKMS at an access node of this network."""
    NO_ROUTE = "no-route"
    """No way that the class may take leads there."""
    NOT_DISJOINT = "not-disjoint"
    """Ways lead there, but fewer that meet nowhere than the class needs."""
    NO_CAPACITY = "no-capacity"
    """The ways that lead there have no such rate left."""


class PathRequest(Message, kw_only=True):
    """CKMS to controller: this node needs paths to that CKMS; asking again changes what was asked before."""

    destination: str
    """Service id of the CKMS at the other access node."""
    service_class: str
    rate: float
    """Bytes of CN key a second."""
    failed: str | None = None
    """The neighbour through which paths fail though the link to it is up, or whose link is down."""


class PathReply(Message, kw_only=True):
    """Taken on, or why not."""

    refusal: PathRefusal | None = None
    """None: the statements follow by gNMI."""
    earliest_s: float = 0.0
    """Of a refusal: before so many seconds nothing will change; 0: nobody knows."""
    rate: float = 0.0
    """Of a refusal for want of capacity: bytes of CN key a second that would be granted now; 0: none."""
    price: float = 0.0
    """Bits of link key that a bit of CN key costs over the paths taken while nothing fails; 0: not known yet."""
    undivided: float = 0.0
    """Of class split: what it would be over the best single path."""


class AskExposures(Message, kw_only=True):
    """CKMS to controller: which keys that this node sent, or got, crossed a node that is in quarantine?"""

    known: str = ""
    """The `mark` of what it was told last."""


class Exposures(Message, kw_only=True):
    """All of them, while keys may live that were made under them."""

    refusal: PathRefusal | None = None
    """Only that another controller leads."""
    mark: str = ""
    """Names what is told here."""
    exposures: list[Exposure] | None = None
    """None: what is known."""
