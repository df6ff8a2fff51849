"""What a network that was laid out before has already, and keeps when its description changes: ports and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from keyhaul.config.addresses import parse_address
from keyhaul.config.services import CkmsConfig, ForwardingEntry, PathSection, QkdmConfig, ServiceClass
from keyhaul.identity.names import Role

Way = tuple[ServiceClass | None, tuple[str, ...]]
"""A class, and the nodes of a path."""


@dataclass(frozen=True, slots=True)
class Former:
    """As made, a network that is new."""

    ports: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Of modules, by node and link."""
    labels: Mapping[Way, tuple[str, ...]] = field(default_factory=dict)
    """Of the hops of each path."""
    drawn: frozenset[str] = frozenset()
    """All labels that are in use."""


def former(carriers: Mapping[str, CkmsConfig], modules: Mapping[str, QkdmConfig]) -> Former:
    """Return what these configurations, by node, say."""
    entries = {
        node: {(entry.label, entry.previous): entry for entry in config.entry} for node, config in carriers.items()
    }
    ways = dict(
        way for node, config in carriers.items() for path in config.path if (way := _followed(node, path, entries))
    )
    return Former(
        ports={
            (node, module.link): parse_address(module.address)[1]
            for node, config in modules.items()
            for module in config.module
        },
        labels=ways,
        drawn=frozenset(
            [label for table in entries.values() for label, _ in table]
            + [path.label for config in carriers.values() for path in config.path]
        ),
    )


def _followed(
    node: str, path: PathSection, entries: Mapping[str, Mapping[tuple[str, str], ForwardingEntry]]
) -> tuple[Way, tuple[str, ...]] | None:
    """Where a path leads, hop by hop, and its labels; None where it leads nowhere."""
    nodes, labels, hop = [node], [path.label], path.next
    while (here := _node(hop)) not in nodes:
        entry = entries.get(here, {}).get((labels[-1], f"{Role.CKMS}-{nodes[-1]}"))
        if entry is None:
            return None
        nodes.append(here)
        if entry.next is None or entry.next_label is None:
            whole = path.destination == hop
            return ((path.service_class, tuple(nodes)), tuple(labels)) if whole else None
        labels.append(entry.next_label)
        hop = entry.next
    return None


def _node(service: str) -> str:
    return service.removeprefix(f"{Role.CKMS}-")
