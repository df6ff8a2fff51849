"""The version of the installed suite."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def suite_version() -> str:
    """E.g. ``0.1.0``; ``unknown`` where the suite runs without being installed."""
    try:
        return version("keyhaul")
    except PackageNotFoundError:
        return "unknown"
