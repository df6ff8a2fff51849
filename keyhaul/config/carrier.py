"""What a controller has to know of the network beforehand: its CKMSs and the links between them, as one JSON file.

The file lies beside the controller's configuration. It says what the network description says of the carrier, and
nothing of users: no site, AKMS, customer or SAE is named in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from keyhaul.config.checks import address_problems, duplicates
from keyhaul.config.problems import ConfigurationError, Problem
from keyhaul.config.reading import read_bounded
from keyhaul.config.services import SuiteName

PLAN_VERSION = 1

MAXIMUM_BYTES = 64 * 1024 * 1024
"""Greater files are refused unread; one of 10,000 nodes has about a twentieth of it."""

CkmsId = Annotated[str, Meta(pattern=r"\Ackms-[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?\Z")]
Figure = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class CarrierNode(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A CKMS."""

    id: CkmsId
    """Its service id, e.g. ``ckms-9``."""
    target: str
    """Where its agent listens, HOST:PORT."""
    access: bool = False
    """Whether an AKMS stands beside it."""
    jurisdiction: str = ""
    place: str = ""
    """For people, e.g. a city."""


class CarrierLink(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Two adjacent CKMSs."""

    id: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,64}\Z")]
    a: CkmsId
    b: CkmsId
    quantum: bool = True
    """Whether QKD modules yield its keys."""
    rate: Figure
    """What is expected of each direction, bits per second."""
    capacity: Figure
    """What a direction's pool holds, bits."""
    suites: tuple[SuiteName, ...]
    """Protections allowed on it, best first."""
    risk_groups: tuple[str, ...] = ()
    """What it shares a fate with: ducts, bridges, buildings."""
    km: Annotated[float, Meta(ge=0)] = 0.0


class CarrierPlan(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of it."""

    v: int = PLAN_VERSION
    network: str
    """Its name."""
    nodes: tuple[CarrierNode, ...]
    links: tuple[CarrierLink, ...]


_DECODER = msgspec.json.Decoder(CarrierPlan)


def encode(plan: CarrierPlan) -> bytes:
    """Return a plan as the file has it: JSON for people to read and compare, always the same for the same plan."""
    return json.dumps(msgspec.to_builtins(plan), indent=1, ensure_ascii=False).encode() + b"\n"


def load(path: Path) -> tuple[CarrierPlan, bytes]:
    """Read and check a plan; return it with the bytes that it was read from.

    Raises:
        ConfigurationError: it cannot be read, or is no plan; what is wrong is listed.
    """
    content = read_bounded(path, MAXIMUM_BYTES)
    return decode(content, path), content


def decode(content: bytes, path: Path) -> CarrierPlan:
    """Check the content of a file; `path` names it in errors.

    Raises:
        ConfigurationError: it is no plan, its nodes and links make no network, or a later release wrote it.
    """
    try:
        plan = _DECODER.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise ConfigurationError(path, [Problem("", "", f"is no plan of a network: {error}")]) from None
    if plan.v != PLAN_VERSION:
        fault = f"version {plan.v} is not known here ({PLAN_VERSION} is): make the plan anew by keyhaul network plan"
        raise ConfigurationError(path, [Problem("", "v", fault)])
    problems = [*_nodes(plan), *_links(plan)]
    if problems:
        raise ConfigurationError(path, problems)
    return plan


def _nodes(plan: CarrierPlan) -> Iterator[Problem]:
    if not plan.nodes:
        yield Problem("nodes", "", "empty (one object for each CKMS)")
    yield from duplicates("nodes", "id", (node.id for node in plan.nodes))
    for place, node in enumerate(plan.nodes, 1):
        for problem in address_problems("target", node.target):
            yield Problem(f"nodes {place}", problem.field, problem.message)


def _links(plan: CarrierPlan) -> Iterator[Problem]:
    known = {node.id for node in plan.nodes}
    yield from duplicates("links", "id", (link.id for link in plan.links))
    yield from duplicates("links", "a and b", (" and ".join(sorted((link.a, link.b))) for link in plan.links))
    for place, link in enumerate(plan.links, 1):
        for field, end in (("a", link.a), ("b", link.b)):
            if end not in known:
                yield Problem(f"links {place}", field, f'"{end}" is no node of the plan')
        if link.a == link.b:
            yield Problem(f"links {place}", "b", f'"{link.b}" is the other end as well (another node)')
        if not link.suites:
            yield Problem(f"links {place}", "suites", "empty (a protection, at least)")
