"""What follows from a message at a CKMS, for the driver to do (`carrier.py`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from keyhaul.transport.messages.base import ErrorCode
from keyhaul.transport.messages.relay import Forward, RelayFailure, RelayOutcome

FAILURES = {
    ErrorCode.EXHAUSTED: RelayFailure.NO_KEYS,
    ErrorCode.DEADLINE: RelayFailure.DEADLINE,
    ErrorCode.BUSY: RelayFailure.BUSY,
    ErrorCode.UNREACHABLE: RelayFailure.UNREACHABLE,
}
"""What is answered for a batch that an error kept from going on."""


@dataclass(frozen=True, slots=True)
class SendForward:
    """Seal and send to the neighbour; on failure call `Relay.failed`."""

    neighbour: str
    message: Forward
    bits: bytes = field(repr=False)
    deadline: float
    flow: str = ""
    """The label under which the batch came, or left where it was submitted here: paths share what a node has."""


@dataclass(frozen=True, slots=True)
class DeliverBatch:
    """Give to this node's AKMS, then call `Relay.finished`."""

    reference: str
    batch: str
    bits: bytes = field(repr=False)
    deadline: float
    flow: str = ""
    """As in `SendForward`."""
    shares: int = 1
    """Over how many paths it came."""


@dataclass(frozen=True, slots=True)
class SendAcknowledge:
    """Tell the neighbour what became of its batch; of no use to it after `deadline`."""

    neighbour: str
    outcome: RelayOutcome
    deadline: float


@dataclass(frozen=True, slots=True)
class TellOutcome:
    """Tell this node's AKMS what became of the batch that it submitted."""

    batch: str
    failure: RelayFailure | None


@dataclass(frozen=True, slots=True)
class StopSending:
    """Do not send these any more where they have not left; of those that have not, call `Relay.unsent`."""

    references: tuple[str, ...]


Effect = SendForward | DeliverBatch | SendAcknowledge | TellOutcome | StopSending
