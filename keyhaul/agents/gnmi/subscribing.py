"""What a SubscriptionList asks for (gNMI section 3.5.1), checked before anything is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from pygnmi.spec.v080 import gnmi_pb2

from keyhaul.agents.gnmi import paths, values
from keyhaul.agents.gnmi.errors import Code, Refused, malformed, unimplemented
from keyhaul.agents.gnmi.getting import models
from keyhaul.agents.gnmi.paths import Pattern
from keyhaul.agents.gnmi.schema import Schema

MAXIMUM_PATHS = 64
LOWEST_INTERVAL = 0.1
"""Seconds between two samples or heartbeats, at least."""
USUAL_INTERVAL = 1.0
"""Seconds between two samples where the target chooses."""

_NANO = 1_000_000_000


class Mode(Enum):
    """The modes of a SubscriptionList."""

    STREAM = gnmi_pb2.SubscriptionList.STREAM
    ONCE = gnmi_pb2.SubscriptionList.ONCE
    POLL = gnmi_pb2.SubscriptionList.POLL


@dataclass(frozen=True, slots=True)
class Part:
    """One pattern, and when it is told. Times are in seconds."""

    pattern: Pattern
    sample: float | None = None
    """Between two samples; None: told when it changes."""
    heartbeat: float | None = None
    """After which it is told though nothing has changed."""
    suppress: bool = False
    """Whether a sample that equals the last one is left out."""
    sampled: bool | None = None
    """Only what the schema marks as sampled, or only what it does not; None: both."""


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """A SubscriptionList that can be served."""

    mode: Mode
    encoding: int
    updates_only: bool
    target: str
    """To be given back in the prefix of each notification."""
    origin: str
    parts: tuple[Part, ...]


def read(schema: Schema, message: Any) -> Subscriptions:
    """Read and check a SubscriptionList.

    Raises:
        Refused: INVALID_ARGUMENT for what is malformed or cannot be attained, UNIMPLEMENTED for paths, encodings and
            features that this target does not have, RESOURCE_EXHAUSTED for too many paths.
    """
    values.encoding(message.encoding)
    models(schema, message.use_models)
    if message.use_aliases:
        raise unimplemented("path aliases")
    if message.mode not in gnmi_pb2.SubscriptionList.Mode.values():
        raise malformed(f"no subscription mode {message.mode}")
    if len(message.subscription) > MAXIMUM_PATHS:
        raise Refused(Code.RESOURCE_EXHAUSTED, f"at most {MAXIMUM_PATHS} paths in a subscription")
    prefix = message.prefix if message.HasField("prefix") else None
    parts: dict[Part, None] = {}
    origins = set()
    for subscription in message.subscription:
        asked = paths.resolve(schema, subscription.path, prefix)
        origins.add(asked.origin)
        for pattern in asked.patterns:
            parts.update(dict.fromkeys(_parts(pattern, subscription, message.mode)))
    if len(parts) > paths.MAXIMUM_PATTERNS:
        raise Refused(Code.RESOURCE_EXHAUSTED, "the wildcards of the subscription match too much")
    return Subscriptions(
        mode=Mode(message.mode),
        encoding=message.encoding,
        updates_only=message.updates_only,
        target=prefix.target if prefix is not None else "",
        origin=origins.pop() if len(origins) == 1 else "",
        parts=tuple(parts),
    )


def _parts(pattern: Pattern, subscription: Any, mode: int) -> tuple[Part, ...]:
    if mode != gnmi_pb2.SubscriptionList.STREAM:
        return (Part(pattern),)
    heartbeat = _interval("heartbeat_interval", subscription.heartbeat_interval)
    suppress = subscription.suppress_redundant
    match subscription.mode:
        case gnmi_pb2.ON_CHANGE:
            return (Part(pattern, None, heartbeat),)
        case gnmi_pb2.SAMPLE:
            sample = _interval("sample_interval", subscription.sample_interval) or LOWEST_INTERVAL
            return (Part(pattern, sample, heartbeat, suppress),)
        case gnmi_pb2.TARGET_DEFINED:
            if subscription.sample_interval:
                raise malformed("TARGET_DEFINED has no sample_interval: the target chooses")
            return (
                Part(pattern, None, heartbeat, sampled=False),
                Part(pattern, USUAL_INTERVAL, heartbeat, suppress, sampled=True),
            )
    raise malformed(f"no mode {subscription.mode} for a path")


def _interval(name: str, nanoseconds: int) -> float | None:
    if not nanoseconds:
        return None
    if nanoseconds < LOWEST_INTERVAL * _NANO:
        raise malformed(f"{name} {nanoseconds} ns cannot be attained: at least {round(LOWEST_INTERVAL * _NANO)} ns")
    return nanoseconds / _NANO
