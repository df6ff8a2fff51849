"""What a client asks a target to tell, and what it is told; values are left as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pygnmi.spec.v080 import gnmi_pb2

from keyhaul.agents.gnmi import paths
from keyhaul.agents.gnmi.paths import Path

_NANO = 1_000_000_000


class Update(NamedTuple):
    """What is at a path now."""

    path: Path
    """Its first step has the module."""
    value: bytes
    """JSON as RFC 7951 has it."""
    duplicates: int = 0
    """How many values before this one were left out because they were not taken in time."""


class Notice(NamedTuple):
    """One message of a subscription."""

    timestamp: int
    """Nanoseconds since 1970, by the target's clock; 0 with `synced`."""
    deletes: tuple[Path, ...]
    """What is gone, with all below; they come before the updates."""
    updates: tuple[Update, ...]
    synced: bool = False
    """All that was there when the subscription began has been told."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One path of a subscription; times are in seconds."""

    path: str
    sample: float | None = None
    """Between two samples; None: told when it changes."""
    heartbeat: float | None = None
    """After which it is told though nothing has changed."""
    suppress_redundant: bool = False


def updates(notification: Any) -> tuple[Update, ...]:
    """Read the updates of a Notification."""
    return tuple(
        [
            Update(paths.from_proto(update.path), update.val.json_ietf_val, update.duplicates)
            for update in notification.update
        ]
    )


def period(wanted: Wanted) -> float:
    """Return after how many seconds at most it is told, changed or not; infinite: only when it changes."""
    told = [] if wanted.sample is None or wanted.suppress_redundant else [wanted.sample]
    return min([*told, *([] if wanted.heartbeat is None else [wanted.heartbeat])], default=float("inf"))


def subscription_list(wanted: Sequence[Wanted], updates_only: bool) -> Any:
    """Write a SubscriptionList (STREAM)."""
    asked = gnmi_pb2.SubscriptionList(
        mode=gnmi_pb2.SubscriptionList.STREAM, encoding=gnmi_pb2.JSON_IETF, updates_only=updates_only
    )
    for each in wanted:
        asked.subscription.add(
            path=paths.to_proto(paths.parse(each.path)),
            mode=gnmi_pb2.ON_CHANGE if each.sample is None else gnmi_pb2.SAMPLE,
            sample_interval=round((each.sample or 0) * _NANO),
            heartbeat_interval=round((each.heartbeat or 0) * _NANO),
            suppress_redundant=each.suppress_redundant,
        )
    return asked
