"""What differs between two descriptions of a network, and which of that a running network can take.

What it takes are carrier nodes and the links between them: new ones, ones that go, and what a controller or the paths
of the configuration have to know of those that stay. All else is somebody's configuration from its start on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from keyhaul.config.description import Description, LinkDescription, NodeSection
from keyhaul.identity.names import Role

Field = tuple[str, Any, Any]
"""Name, before, after."""

_OF_NODES = {"place", "jurisdiction"}
_OF_LINKS = {"km", "risk_groups", "carrier", "enabled"}
"""Fields that may change while the network runs."""

_ELSEWHERE = {
    "customer": "AAA is told of customers: keyhaul aaa import",
    "sae": "AAA is told of SAEs: keyhaul aaa import",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference."""

    what: str
    """``node``, ``link``, or another table of the description."""
    id: str
    """The node's or link's; empty for a table that is there once."""
    kind: str
    """``added``, ``removed`` or ``changed``."""
    fields: tuple[Field, ...] = ()
    refused: str = ""
    """Why a running network cannot take it; empty: it can."""


def compare(before: Description, after: Description) -> list[Change]:
    """Return the differences of two checked descriptions, in the order of the second; what is gone comes last."""
    return [
        *_singles(before, after),
        *_several("node", _nodes(before), _nodes(after), lambda *both: _node_refused(before, *both)),
        *_several("link", _links(before), _links(after), lambda *both: _link_refused(before, after, *both)),
        *_several("customer", _named(before.customer), _named(after.customer), lambda *_: _ELSEWHERE["customer"]),
        *_several("sae", _saes(before), _saes(after), lambda *_: _ELSEWHERE["sae"]),
    ]


def _singles(before: Description, after: Description) -> Iterator[Change]:
    for table in ("network", "modules", "controller"):
        fields = _differ(getattr(before, table), getattr(after, table))
        if fields:
            why = f"{_names(fields)}: all services have it from their start on; lay the network out anew"
            yield Change(table, "", "changed", fields, why)
    if before.carrier_classes != after.carrier_classes:
        yield Change("carrier", "", "changed", (("class", before.carrier_classes, after.carrier_classes),))


def _several(
    what: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    refused: Callable[[Any, Any, tuple[Field, ...]], str],
) -> Iterator[Change]:
    for name, one in after.items():
        former = before.get(name)
        if former is None:
            yield Change(what, name, "added", refused=refused(None, one, ()))
        elif fields := _differ(former, one):
            yield Change(what, name, "changed", fields, refused(former, one, fields))
    for name, one in before.items():
        if name not in after:
            yield Change(what, name, "removed", refused=refused(one, None, ()))


def _node_refused(
    network: Description, before: NodeSection | None, after: NodeSection | None, fields: tuple[Field, ...]
) -> str:
    if before is not None and after is not None:
        fixed = [field for field in fields if field[0] not in _OF_NODES]
        return f"{_names(fixed)}: its services are known by it; remove the node, then add another" if fixed else ""
    one = after or before
    assert one is not None
    if one.roles != [Role.CKMS]:
        return "only carrier nodes come and go while a network runs (ckms alone): an access node is known to all others"
    if before is None:
        for other in network.node:
            if other.number == one.number:
                return f"number {one.number} is that of node {other.name}, whose services have its addresses"
    return ""


def _link_refused(
    network: Description,
    changed: Description,
    before: LinkDescription | None,
    after: LinkDescription | None,
    fields: tuple[Field, ...],
) -> str:
    one = after or before
    assert one is not None
    there = changed if after is not None else network
    if there.roles_of(one) != (Role.CKMS, Role.CKMS):
        return "only links between carriers come, go and change while a network runs, not those of user sites"
    if before is not None and after is not None:
        fixed = [field for field in fields if field[0] not in _OF_LINKS]
        return f"{_names(fixed)}: both ends have it from their start on" if fixed else ""
    if before is None:
        for other in network.link:
            if other.hop == one.hop:
                return f"it is called {other.id} where it runs: leave a and b as they were"
    elif any(other.hop == one.hop for other in changed.link):
        return "it is there under another name: leave a and b as they were"
    return ""


def _differ(before: Any, after: Any) -> tuple[Field, ...]:
    pairs = (
        (field.encode_name, getattr(before, field.name), getattr(after, field.name))
        for field in msgspec.structs.fields(before)
    )
    return tuple(pair for pair in pairs if pair[1] != pair[2])


def _names(fields: Iterable[Field]) -> str:
    return ", ".join(name for name, _, _ in fields)


def _nodes(description: Description) -> dict[str, NodeSection]:
    return {node.name: node for node in description.node}


def _links(description: Description) -> dict[str, LinkDescription]:
    return {link.id: link for link in description.link}


def _named(several: Iterable[Any]) -> dict[str, Any]:
    return {one.name: one for one in several}


def _saes(description: Description) -> dict[str, Any]:
    return {sae.id: sae for sae in description.sae}
