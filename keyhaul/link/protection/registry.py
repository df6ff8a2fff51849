"""Every protection that this release knows, and how two ends agree on one."""

from __future__ import annotations

from collections.abc import Sequence

from keyhaul.link.protection.aes_gcm import Aes256Gcm
from keyhaul.link.protection.interface import Protection
from keyhaul.link.protection.otp import OneTimePad

PROTECTIONS: dict[str, type[Protection]] = {suite.name: suite for suite in (OneTimePad, Aes256Gcm)}
"""Protections by the name of their suite."""


class UnknownSuite(ValueError):
    """A suite that this release does not know, or a list of them that leaves none above the floor."""


def acceptable(suites: Sequence[str], floor: str) -> tuple[str, ...]:
    """The suites of an ordered list that are at least as strong as the floor, in the same order.

    Raises:
        UnknownSuite: a name is unknown, or none is left.
    """
    for name in (*suites, floor):
        if name not in PROTECTIONS:
            raise UnknownSuite(f"no suite is called {name!r}; there are {', '.join(PROTECTIONS)}")
    left = tuple(name for name in suites if PROTECTIONS[name].strength >= PROTECTIONS[floor].strength)
    if not left:
        raise UnknownSuite(f"none of the suites {', '.join(suites) or '(none)'} is as strong as the floor {floor}")
    return left


def choose(initiator: Sequence[str], responder: Sequence[str]) -> str | None:
    """The initiator's first suite that the responder accepts too; None where there is none."""
    return next((name for name in initiator if name in responder and name in PROTECTIONS), None)
