"""What differs between two states of a tree, as far as subscribers have to be told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from keyhaul.agents.gnmi.paths import Path, Step
from keyhaul.agents.gnmi.schema import Container, Leaf, Node


class Place(NamedTuple):
    """A leaf, and at which depths of its path there are units."""

    path: Path
    units: tuple[int, ...]

    def told_as(self, depth: int) -> Path:
        """Return the path of the update that tells this leaf to who subscribed at that depth."""
        for unit in self.units:
            if unit >= depth:
                return self.path[:unit]
        return self.path


class Deletion(NamedTuple):
    """A leaf, container or entry that is gone, with all leaves that it had."""

    top: Path
    leaves: tuple[Place, ...]


@dataclass(slots=True)
class Changes:
    """The difference between two states."""

    updated: list[Place] = field(default_factory=list)
    """Leaves that are new or have another value."""
    deleted: list[Deletion] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is any difference."""
        return bool(self.updated or self.deleted)


def between(schema: Container, old: Any, new: Any) -> Changes:
    """Compare two states of a tree."""
    changes = Changes()
    _compare(schema, old, new, (), (), changes)
    return changes


def _compare(node: Node, old: Any, new: Any, path: Path, units: tuple[int, ...], changes: Changes) -> None:
    if old is new or old == new:
        return
    if isinstance(node, Leaf):
        changes.updated.append(Place(path, units))
        return
    assert isinstance(node, Container)
    for name, value in old.items():
        child = node.children[name]
        if name not in new:
            for at, entry in _entries(child, value, path):
                _delete(child, entry, at, units, changes)
            continue
        other = new[name]
        if isinstance(child, Container) and child.keys:
            for keys, entry in value.items():
                if keys not in other:
                    _delete(child, entry, (*path, Step(name, keys)), units, changes)
    for name, value in new.items():
        child = node.children[name]
        before = old.get(name)
        if isinstance(child, Container) and child.keys:
            for keys, entry in value.items():
                former = None if before is None else before.get(keys)
                if entry is not former:
                    _changed_or_new(child, former, entry, (*path, Step(name, keys)), units, changes)
        elif value is not before:
            _changed_or_new(child, before, value, (*path, Step(name)), units, changes)


def _changed_or_new(node: Node, old: Any, new: Any, path: Path, units: tuple[int, ...], changes: Changes) -> None:
    inside = _with_unit(node, path, units)
    if old is None:
        changes.updated.extend(_leaves(node, new, path, inside))
    else:
        _compare(node, old, new, path, inside, changes)


def _delete(node: Node, value: Any, path: Path, units: tuple[int, ...], changes: Changes) -> None:
    changes.deleted.append(Deletion(path, tuple(_leaves(node, value, path, _with_unit(node, path, units)))))


def _leaves(node: Node, value: Any, path: Path, units: tuple[int, ...]) -> Iterator[Place]:
    if isinstance(node, Leaf):
        yield Place(path, units)
        return
    assert isinstance(node, Container)
    for name, member in value.items():
        child = node.children[name]
        for at, entry in _entries(child, member, path):
            yield from _leaves(child, entry, at, _with_unit(child, at, units))


def _entries(node: Node, value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(node, Container) and node.keys:
        for keys, entry in value.items():
            yield (*path, Step(node.name, keys)), entry
    else:
        yield (*path, Step(node.name)), value


def _with_unit(node: Node, path: Path, units: tuple[int, ...]) -> tuple[int, ...]:
    return (*units, len(path)) if isinstance(node, Container) and node.unit else units
