"""The roles that are installed, by the entry points `keyhaul.roles`; each is loaded when it is named."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import cast

from keyhaul.runtime.interface import Role


class UnknownRole(LookupError):
    """No role of that name is installed."""


def role_names() -> list[str]:
    """The names of all installed roles."""
    return sorted({point.name for point in entry_points(group="keyhaul.roles")})


def load_role(name: str) -> Role:
    """Import a role.

    Raises:
        UnknownRole: it is not installed.
    """
    for point in entry_points(group="keyhaul.roles", name=name):
        return cast(Role, point.load())
    raise UnknownRole(f"no role {name!r} is installed; there are {', '.join(role_names())}")
