"""The paths that configurations have: between all access nodes, with what each hop needs for them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from keyhaul.config.description import Description
from keyhaul.config.former import Former
from keyhaul.config.routes import hops_of
from keyhaul.config.services import ForwardingEntry, PathSection, ServiceClass
from keyhaul.identity.names import Role
from keyhaul.randomness import Source, label


class Forwarding:
    """Paths between all access nodes, and the entry that each hop needs for them; no label occurs twice."""

    def __init__(self, description: Description, source: Source, former: Former) -> None:
        self._source = source
        self._former = former
        self._drawn = set(former.drawn)
        self.paths: dict[str, list[PathSection]] = {}
        """By the node where they start."""
        self.entries: dict[str, list[ForwardingEntry]] = {}
        """By the node of the table."""
        carrier = description.carrier()
        ends = [node.name for node in description.with_role(Role.AKMS)]
        for start, end in permutations(ends, 2):
            for rank, path in enumerate(carrier.ranked(start, end)):
                for service_class in description.classes():
                    self._install(description, path, rank, service_class)

    def _install(
        self, description: Description, path: Sequence[str], rank: int, service_class: ServiceClass | None
    ) -> None:
        labels = self._former.labels.get((service_class, tuple(path))) or tuple(self._label() for _ in path[1:])
        held_to = [description.policing(hop, service_class) for hop in hops_of(path)]
        self.paths.setdefault(path[0], []).append(
            PathSection(
                destination=f"ckms-{path[-1]}",
                rank=rank,
                next=f"ckms-{path[1]}",
                label=labels[0],
                service_class=service_class,
                rate=min(one.rate for one in held_to),
                burst=min(one.allowed_burst() for one in held_to),
            )
        )
        for place, node in enumerate(path[1:], 1):
            last = place == len(path) - 1
            self.entries.setdefault(node, []).append(
                ForwardingEntry(
                    label=labels[place - 1],
                    previous=f"ckms-{path[place - 1]}",
                    next=None if last else f"ckms-{path[place + 1]}",
                    next_label=None if last else labels[place],
                    service_class=service_class,
                    rate=held_to[place - 1].rate,
                    burst=held_to[place - 1].allowed_burst(),
                )
            )

    def _label(self) -> str:
        while (drawn := label(self._source)) in self._drawn:
            pass
        self._drawn.add(drawn)
        return drawn
