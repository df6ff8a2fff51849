"""What happened between two discoveries, as events for operators. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from controller.belief import Kind
from controller.steering.effects import Note
from controller.topology import Discovery


class Change(StrEnum):
    """The closed list of kinds of these events."""

    LINK_UP = "link-up"
    """It may be used: both ends tell of it, and agree."""
    LINK_DOWN = "link-down"
    """It may not be used any more; the fact `state` says how it was found (`controller.topology.LinkState`)."""
    NODE_HEARD = "node-heard"
    """A CKMS tells of itself."""
    NODE_SILENT = "node-silent"
    """It tells nothing any more."""


def changes(before: Discovery | None, after: Discovery) -> Iterator[Note]:
    """Yield what is different in a later discovery; nothing for links and nodes that are in one of both alone."""
    if before is None:
        return
    silent, was_silent = _silent(after), _silent(before)
    known = before.view.topology.node_number
    for node in after.view.nodes:
        if node.id in known and (node.id in silent) != (node.id in was_silent):
            yield Note(Change.NODE_SILENT if node.id in silent else Change.NODE_HEARD, node.id)
    if after.view is before.view:
        return
    links = before.view.topology.link_number
    for link in after.view.links:
        former = links.get(link.id)
        if former is not None and before.view.links[former].up != link.up:
            if link.up:
                yield Note(Change.LINK_UP, link.id)
            else:
                yield Note(Change.LINK_DOWN, link.id, {"state": after.links[link.id].state.value})


def _silent(found: Discovery) -> frozenset[str]:
    return frozenset(one.subject for one in found.nodes if one.kind is Kind.SILENT)
