"""What was promised to a CKMS that asked for paths, as it is recorded and adopted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Hop:
    """A link in one direction, and what is reserved of it."""

    link: str
    sender: str
    """The CKMS that sends over it."""
    rate: int
    """Of link key, bits per second; 0: the path may use the hop, nothing is promised."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A demand: what one CKMS asked for and was granted."""

    id: str
    """32 hexadecimal digits, random."""
    source: str
    target: str
    service_class: str
    rate: int
    """Asked for, bits per second."""
    lifetime: float
    """Seconds."""
    paths: tuple[tuple[Hop, ...], ...]
    """By rank."""
    terms: Mapping[str, Any] = field(default_factory=dict)
    """What else was asked for, as JSON: shares, constraints."""
