"""The schema of a tree: containers, lists with keys, leaves with types (RFC 7950 section 7), without YANG's text.

Every node of a module belongs to that module; the top of a tree is named `module:container`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from keyhaul.agents.gnmi.types import LeafType


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """What all nodes have."""

    name: str
    config: bool = True
    """Whether it is configuration; false also for everything below (RFC 7950 section 7.21.1)."""
    sampled: bool = False
    """Whether TARGET_DEFINED subscriptions sample it (counters, levels) rather than tell each change."""


@dataclass(frozen=True, slots=True, eq=False)
class Leaf(Node):
    """A leaf, or a leaf-list (`many`)."""

    type: LeafType = field(kw_only=True)
    many: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Container(Node):
    """A container or, with `keys`, a list."""

    children: Mapping[str, Node] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    """The leaves whose values name an entry, sorted by name; empty: no list."""
    unit: bool = False
    """Telemetry: everything in it is told as one JSON object, as one update, whenever any of it changes."""


def leaf(name: str, type: LeafType, *, config: bool = True, sampled: bool = False) -> Leaf:  # noqa: A002
    """Return a leaf."""
    return Leaf(name, config, sampled, type=type)


def leaf_list(name: str, type: LeafType, *, config: bool = True, sampled: bool = False) -> Leaf:  # noqa: A002
    """Return a leaf-list."""
    return Leaf(name, config, sampled, type=type, many=True)


def container(name: str, *children: Node, config: bool = True, sampled: bool = False, unit: bool = False) -> Container:
    """Return a container."""
    return Container(name, config, sampled, _by_name(children), unit=unit)


def list_of(
    name: str, keys: Iterable[str], *children: Node, config: bool = True, sampled: bool = False, unit: bool = False
) -> Container:
    """Return a list; its keys are among the children."""
    made = Container(name, config, sampled, _by_name(children), tuple(sorted(keys)), unit)
    for key in made.keys:
        found = made.children.get(key)
        if not isinstance(found, Leaf) or found.many:
            raise ValueError(f"{name} has no leaf {key} that could be its key")
    return made


@dataclass(frozen=True, slots=True)
class Module:
    """A YANG module, as Capabilities name it, and the containers at its top."""

    name: str
    organization: str
    revision: str
    namespace: str
    top: tuple[Container, ...]


class Schema:
    """The modules of one tree."""

    def __init__(self, modules: Iterable[Module]) -> None:
        """Bring the modules together; `config` and `sampled` are handed down to where they hold."""
        self.modules = tuple(modules)
        tops = _by_name(
            _handed_down(replace(top, name=f"{module.name}:{top.name}"), top.config, top.sampled)
            for module in self.modules
            for top in module.top
        )
        self.root = Container("", children=tops)
        self._plain: dict[str, list[str]] = {}
        for name in tops:
            self._plain.setdefault(name.partition(":")[2], []).append(name)
        self._found: dict[tuple[str, ...], Node | None] = {}

    def has_module(self, name: str) -> bool:
        """Whether one of the modules has that name."""
        return any(module.name == name for module in self.modules)

    def top(self, name: str) -> str | None:
        """Return the qualified name of a top container for its qualified or, if only one has it, plain name."""
        if name in self.root.children:
            return name
        found = self._plain.get(name, [])
        return found[0] if len(found) == 1 else None

    def node(self, names: tuple[str, ...]) -> Node | None:
        """Return the node under these names, the first one qualified; None if there is none."""
        if names not in self._found:
            if len(self._found) > 4096:
                self._found.clear()
            self._found[names] = self._look_up(names)
        return self._found[names]

    def _look_up(self, names: tuple[str, ...]) -> Node | None:
        node: Node | None = self.root
        for name in names:
            node = node.children.get(name) if isinstance(node, Container) else None
        return node


def _by_name(children: Iterable[Node]) -> dict[str, Node]:
    return {child.name: child for child in children}


def _handed_down(node: Node, config: bool, sampled: bool) -> Node:
    config, sampled = config and node.config, sampled or node.sampled
    if not isinstance(node, Container):
        return replace(node, config=config, sampled=sampled)
    children = {name: _handed_down(child, config, sampled) for name, child in node.children.items()}
    return replace(node, config=config, sampled=sampled, children=children)
