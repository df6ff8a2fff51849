"""Forwarding statements: what the controller says to one CKMS about one entry or path.

They are signed (`keyhaul.agents.signing`) over their exact JSON bytes: these travel and are kept as they were signed,
and are never encoded anew. Nothing in a statement tells which statements of other nodes belong to the same path:
labels, serials and groups are of one node alone.
"""

from __future__ import annotations

from enum import StrEnum
from math import isfinite
from typing import Annotated

import msgspec

from keyhaul.keys.grants import SERVICE_CLASSES, SPLIT

STATEMENT_VERSION = 1
"""The version that this release writes."""

SUPPORTED_VERSIONS = range(1, 2)
"""The versions that this release reads."""

MAXIMUM_BODY = 32_768
"""Bytes of one statement."""

MAXIMUM_WITHDRAWN = 1_024
"""Serials in one withdrawal."""

LONGEST_LIFETIME = 31_622_400
"""Seconds: a year."""

LONGEST_DRAIN = 3_600
"""Seconds."""

MAXIMUM_SHARES = 8
"""Node-disjoint paths of one demand of class `split`."""

_LARGEST = 2**63 - 1

Label = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
Group = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
CkmsId = Annotated[str, msgspec.Meta(pattern=r"\Ackms-[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?\Z")]
Number = Annotated[int, msgspec.Meta(ge=1, le=_LARGEST)]
Rate = Annotated[float, msgspec.Meta(gt=0)]


class StatementRefusal(StrEnum):
    """The closed list of reasons for which a statement is not accepted."""

    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    """Of a version, kind or critical field that this release does not know."""
    FORGED = "forged"
    """Not signed with a pinned key of a controller."""
    OTHER_NODE = "other-node"
    OLD_EPOCH = "old-epoch"
    """A newer leader has spoken to this node."""
    REPLAYED = "replayed"
    """Its serial is not greater than what was accepted before."""
    NOT_FRESH = "not-fresh"
    """It names another incarnation of this node, or none where this node cannot tell a replay without."""
    UNFIT = "unfit"
    """It fits neither this node's neighbours nor what is in force."""
    TOO_MANY = "too-many"


class StatementRefused(Exception):
    """A statement that is not accepted, with its reason from the closed list."""

    def __init__(self, refusal: StatementRefusal, message: str, *, serial: int | None = None) -> None:
        super().__init__(message if serial is None else f"statement {serial}: {message}")
        self.refusal = refusal
        self.serial = serial
        """Where it could be read."""


class StatedHop(msgspec.Struct, frozen=True):
    """A neighbour and the label under which it knows the path."""

    neighbour: CkmsId
    label: Label


class EntryStatement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="entry"):
    """What to do with what comes in over `previous` under `label`; a later one for both takes its place."""

    label: Label
    previous: CkmsId
    next: StatedHop | None = None
    """None: deliver to the AKMS of this node."""
    detour: StatedHop | None = None
    """Where to send while the link to `next` is down."""
    service_class: str | None = None
    rate: Rate
    """Bytes a second."""
    burst: Number
    """Bytes."""


class PathStatement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="path"):
    """A path that starts here; a later one of the same destination, class and rank takes its place."""

    destination: CkmsId
    service_class: str | None = None
    group: Group
    """The demand that the path serves."""
    rank: Annotated[int, msgspec.Meta(ge=0, le=255)]
    share: Annotated[int, msgspec.Meta(ge=0, lt=MAXIMUM_SHARES)] = 0
    """Which share of a key the path carries."""
    shares: Annotated[int, msgspec.Meta(ge=1, le=MAXIMUM_SHARES)] = 1
    """How many there are: more than 1 for class `split` alone. Paths of different shares of one group meet nowhere."""
    first: StatedHop
    rate: Rate
    """Bytes a second."""
    burst: Number
    """Bytes."""


class Withdrawal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="withdrawal"):
    """Statements that end; of none, it only makes its epoch and serial known."""

    serials: Annotated[tuple[Number, ...], msgspec.Meta(max_length=MAXIMUM_WITHDRAWN)]
    """Of earlier statements; what is not in force any more stays so."""
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_DRAIN)] = 0.0
    """Seconds for which what is on its way may still use their entries; paths take nothing new at once."""


class Statement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One statement.

    Unknown fields are ignored unless their names stand in `critical`: then the statement is refused.
    """

    v: int
    critical: tuple[str, ...] = ()
    """Fields that the reader must know; ``says.X`` for a field X of what it says."""
    node: CkmsId
    """The CKMS that it is for."""
    incarnation: str | None = None
    """Of that CKMS's process, as its telemetry tells it: no other process accepts the statement."""
    epoch: Number
    """Of the lease under which the controller leads."""
    serial: Number
    """Grows with every statement to this node; of its own at each node."""
    lifetime_s: Annotated[int, msgspec.Meta(ge=1, le=LONGEST_LIFETIME)]
    """Seconds from acceptance."""
    says: EntryStatement | PathStatement | Withdrawal

    @property
    def number(self) -> tuple[int, int]:
        """Epoch and serial, by which statements to a node are ordered."""
        return self.epoch, self.serial


class _Kind(msgspec.Struct):
    kind: str = ""


class _Head(msgspec.Struct):
    """What can be read of a statement of any version."""

    v: int
    critical: tuple[str, ...] = ()
    says: _Kind = msgspec.field(default_factory=_Kind)


_ENCODER = msgspec.json.Encoder(order="deterministic")
_HEAD = msgspec.json.Decoder(_Head)
_STATEMENT = msgspec.json.Decoder(Statement)


def _names(kind: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(kind))


_FIELDS = _names(Statement)
_FIELDS_OF = {
    "entry": _names(EntryStatement),
    "path": _names(PathStatement),
    "withdrawal": _names(Withdrawal),
}


def encode(statement: Statement) -> bytes:
    """Return the canonical JSON of a statement: fields in their order, defaults left out, no white space."""
    return _ENCODER.encode(statement)


def read(body: bytes) -> Statement:
    """Return the statement that a signed body is.

    Raises:
        StatementRefused: malformed; unknown.
    """
    try:
        head = _HEAD.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
        raise StatementRefused(StatementRefusal.MALFORMED, "not a statement") from None
    if head.v not in SUPPORTED_VERSIONS:
        raise StatementRefused(StatementRefusal.UNKNOWN, f"version {head.v} is not known here")
    known = _FIELDS_OF.get(head.says.kind)
    if known is None:
        raise StatementRefused(StatementRefusal.UNKNOWN, "it says something of an unknown kind")
    if not (_FIELDS | {f"says.{name}" for name in known}).issuperset(head.critical):
        raise StatementRefused(StatementRefusal.UNKNOWN, "a critical field is not known here")
    try:
        statement = _STATEMENT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
        raise StatementRefused(StatementRefusal.MALFORMED, "a field is missing or not of its type") from None
    fault = _fault(statement.says)
    if fault:
        raise StatementRefused(StatementRefusal.MALFORMED, fault, serial=statement.serial)
    return statement


def _fault(says: EntryStatement | PathStatement | Withdrawal) -> str:
    """What is wrong with the fields together, empty where nothing is."""
    if isinstance(says, Withdrawal):
        return ""
    if not isfinite(says.rate):
        return "a rate is finite"
    if says.service_class is not None and says.service_class not in SERVICE_CLASSES:
        return "an unknown service class"
    if isinstance(says, EntryStatement):
        if says.detour is not None and says.service_class == SPLIT:
            return "a detour of class split, where another share may pass"
        return "a detour of an entry that delivers here" if says.detour is not None and says.next is None else ""
    if (says.shares > 1) is not (says.service_class == SPLIT):
        return "class split, and no other, has two shares or more"
    return "" if says.share < says.shares else f"share {says.share} of {says.shares}"
