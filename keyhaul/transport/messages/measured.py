"""What the operator's tools ask of the controller about the past: how a link was, by minute, hour or day."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from keyhaul.transport.messages.base import Message
from keyhaul.transport.messages.network import Name

MOST_PERIODS = 1_440


class AskHistory(Message, kw_only=True):
    """Tools to controller: how was this link?"""

    link: Name
    by: Literal["minute", "hour", "day"] = "minute"
    """Hours and days are made when they are over."""
    periods: Annotated[int, Meta(ge=1, le=MOST_PERIODS)] = 60
    """How many to look back, the present one included."""


class PeriodFacts(Struct, kw_only=True):
    """One direction of a link in a minute, hour or day. Rates are bits per second, pools bits."""

    start: int
    """Seconds since 1970, by the clock of the controller's database."""
    sender: str
    samples: int
    """How often it was measured."""
    availability: float
    """Share of the samples in which the link was up."""
    rate: float
    """New link key, mean."""
    rate_least: float
    rate_most: float
    pool: float
    """Mean."""
    pool_least: float
    pool_most: float
    latency_most_us: float
    """One way."""
    qber: float | None
    """Mean; none where it was never known."""
    qber_most: float | None


class History(Message, kw_only=True):
    """What was measured; no row where nothing was. The oldest first."""

    periods: list[PeriodFacts]
