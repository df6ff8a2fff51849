"""What happened between two discoveries, as events for operators. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum

from controller.belief import Kind
from controller.steering.effects import Note
from controller.topology import Discovery
from controller.view import Link


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
    LEADS = "controller-leads"
    """A controller leads from now on."""


def changes(before: Discovery | None, after: Discovery) -> Iterator[Note]:
    """Yield what is different in a later discovery; nothing for links and nodes that are in one of both alone."""
    if before is None:
        return
    known = before.view.topology
    if after.nodes is not before.nodes:
        silent, was_silent = _silent(after), _silent(before)
        both = after.view.topology.node_number
        for node in sorted((silent ^ was_silent) & known.node_number.keys() & both.keys(), key=both.__getitem__):
            yield Note(Change.NODE_SILENT if node in silent else Change.NODE_HEARD, node)
    if after.view is before.view:
        return
    for link, former in _pairs(before, after):
        if link is not former and link.up != former.up:
            if link.up:
                yield Note(Change.LINK_UP, link.id)
            else:
                yield Note(Change.LINK_DOWN, link.id, {"state": after.links[link.id].state.value})


def _pairs(before: Discovery, after: Discovery) -> Iterable[tuple[Link, Link]]:
    """Each link that is in both, as it is and as it was."""
    if after.view.topology is before.view.topology:
        return zip(after.view.links, before.view.links, strict=True)
    known, links = before.view.topology.link_number, before.view.links
    return ((link, links[known[link.id]]) for link in after.view.links if link.id in known)


def _silent(found: Discovery) -> frozenset[str]:
    return frozenset(one.subject for one in found.nodes if one.kind is Kind.SILENT)
