"""Names of nodes, services and applications, and the URI by which a certificate carries a service's name.

An operator service is named by domain, role and node, written in its certificate as the URI subject
alternative name ``spiffe://DOMAIN/ROLE/NODE``. An SAE or KME is named by its certificate's common name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

NodeId = NewType("NodeId", str)
"""A node of the network, e.g. ``8``: lower-case letters, digits and hyphens, at most 32 characters."""

SaeId = NewType("SaeId", str)
"""A secure application entity, unique across operators, at most 64 characters."""

KmeId = NewType("KmeId", str)
"""A key management entity in the sense of ETSI GS QKD 014, as its certificate's common name gives it."""

MAXIMUM_SAE_ID_LENGTH = 64

_NODE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_SAE = re.compile(r"[A-Za-z0-9._~:@+-]{1,64}")


class Role(StrEnum):
    """What a certificate lets its holder be."""

    UKMS = "ukms"
    AKMS = "akms"
    CKMS = "ckms"
    AAA = "aaa"
    QKDM = "qkdm"
    CONTROLLER = "controller"
    MANAGER = "manager"
    VIEWER = "viewer"
    OPERATOR = "operator"
    SALES = "sales"
    SECURITY = "security"
    ADMIN = "admin"


class MalformedName(ValueError):
    """A node, domain, service or SAE name that breaks the rules of this module."""


@dataclass(frozen=True, slots=True, order=True)
class ServiceName:
    """The verified name of an operator service."""

    domain: str
    role: Role
    node: NodeId

    @property
    def uri(self) -> str:
        """The URI subject alternative name of this service's certificates."""
        return f"spiffe://{self.domain}/{self.role}/{self.node}"

    @property
    def id(self) -> str:
        """The short form used in messages, configuration and logs, e.g. ``ckms-8``."""
        return f"{self.role}-{self.node}"

    def __str__(self) -> str:
        return self.id

    @classmethod
    def of(cls, domain: str, service: str) -> ServiceName:
        """Return the name of a service from its short form, e.g. ``ckms-8``.

        Raises:
            MalformedName: it is not of the form ROLE-NODE, or names no known role.
        """
        role, _, node = service.partition("-")
        if role not in frozenset(Role):
            raise MalformedName(f"{service!r} is not a service id, e.g. ckms-8")
        return cls(domain, Role(role), node_id(node))

    @classmethod
    def parse(cls, uri: str) -> ServiceName:
        """Read a name back from its URI.

        Raises:
            MalformedName: the URI is not of the form ``spiffe://DOMAIN/ROLE/NODE`` or names no known role.
        """
        scheme, _, rest = uri.partition("://")
        domain, _, path = rest.partition("/")
        role, _, node = path.partition("/")
        if scheme != "spiffe" or not _DOMAIN.fullmatch(domain) or role not in frozenset(Role):
            raise MalformedName(f"{uri!r} does not name an operator service")
        return cls(domain, Role(role), node_id(node))


def node_id(text: str) -> NodeId:
    """Check a node's name.

    Raises:
        MalformedName: it has other characters than lower-case letters, digits and inner hyphens, or is
            empty or longer than 32 characters.
    """
    if not _NODE.fullmatch(text):
        raise MalformedName(f"{text!r} is not a node name (a-z, 0-9 and inner hyphens, 1 to 32 characters)")
    return NodeId(text)


def sae_id(text: str) -> SaeId:
    """Check an SAE ID.

    Raises:
        MalformedName: it is empty, longer than 64 characters, or has characters that a URL path segment
            or a certificate's common name cannot carry plainly.
    """
    if not _SAE.fullmatch(text):
        raise MalformedName("an SAE ID has 1 to 64 characters out of A-Z a-z 0-9 . _ ~ : @ + -")
    return SaeId(text)
