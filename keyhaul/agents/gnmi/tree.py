"""The tree behind a target, and how a service fills it.

A service names *sources*: for a container of its schema, a function that returns what stands there now, as plain
mappings, iterables of entries and values. `DataTree.refresh` calls them, compares with what they said before, and
tells whoever watches. The target refreshes before it answers and before it samples, and a few times a second
while somebody wants changes; a service refreshes by itself when something happened that must be told at once.

What may be set has a `Writer`. Everything else is read-only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import permutations
from typing import Any, Protocol

from keyhaul.agents.gnmi import changes, data, paths
from keyhaul.agents.gnmi.changes import Changes
from keyhaul.agents.gnmi.paths import Path, Step
from keyhaul.agents.gnmi.schema import Container, Schema

Names = tuple[str, ...]
"""Where a node is in the schema: names without keys, the first one with its module."""

Undo = Callable[[], Awaitable[None]]
Watcher = Callable[[Changes], None]


class Unchanged(Enum):
    """What a source returns that has looked, and would return what it returned last."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED


class Operation(Enum):
    """What an edit does (gNMI section 3.4)."""

    DELETE = "delete"
    REPLACE = "replace"
    UPDATE = "update"


@dataclass(frozen=True, slots=True)
class Edit:
    """One part of a Set, as a writer gets it."""

    operation: Operation
    path: Path
    """The writer's node, or something below it if that is to be deleted or replaced. A list's step without keys: all of
    its entries."""
    value: Any
    """In the form of `data`, None for DELETE. An UPDATE says only what changes; an entry carries its keys."""


class Writer(Protocol):
    """Makes what a Set says take effect in one subtree."""

    async def write(self, edits: Sequence[Edit]) -> Undo:
        """Make all edits take effect, in their order and durably, or raise and change nothing.

        Returns:
            What takes all of it back, called if another part of the same Set fails.

        Raises:
            Refused: with the code that the client gets.
        """
        ...


class Tree(Protocol):
    """What a target serves."""

    @property
    def schema(self) -> Schema:
        """What there can be."""
        ...

    @property
    def writers(self) -> Mapping[Names, Writer]:
        """Who writes which node: containers or lists of the schema, none above another."""
        ...

    def refresh(self) -> Any:
        """Look at what there is, tell the watchers what is different, and return all of it in the form of `data`."""
        ...

    def snapshot(self) -> Any:
        """Return what the last refresh found."""
        ...

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have changes told from now on, during `refresh`; the function returned ends it."""
        ...


class DataTree:
    """A tree made of sources."""

    def __init__(
        self, schema: Schema, sources: Mapping[str, Callable[[], Any]], writers: Mapping[str, Writer] | None = None
    ) -> None:
        """Bind sources and writers to places of the schema.

        Args:
            schema: what there can be.
            sources: by path, e.g. ``/keyhaul-ckms:carrier/links``; each returns the members of that container (None:
                absent; `UNCHANGED`: the same as last time). A source below another one's container adds to what that
                one returns.
            writers: by path of a container or list, without keys.

        Raises:
            ValueError: a path is not one of a container, or of a list, or a writer stands above another.
        """
        self._schema = schema
        self._sources = [(_container(schema, path), source) for path, source in sorted(sources.items())]
        self._writers = {_writable(schema, path): writer for path, writer in (writers or {}).items()}
        for one, other in permutations(self._writers, 2):
            if other[: len(one)] == one:
                raise ValueError(f"a writer of {'/'.join(one)} stands above that of {'/'.join(other)}")
        self._watchers: list[Watcher] = []
        self._data: Any = {}

    @property
    def schema(self) -> Schema:
        """As `Tree`."""
        return self._schema

    @property
    def writers(self) -> Mapping[Names, Writer]:
        """As `Tree`."""
        return self._writers

    def refresh(self) -> Any:
        """As `Tree`.

        Raises:
            BrokenData: a source returned what the schema does not allow.
        """
        plain: dict[str, Any] = {}
        for place, source in self._sources:
            members = source()
            if members is UNCHANGED:
                members = data.at(self._data, place)
            if members is not None:
                _put(plain, place, members)
        former, self._data = self._data, data.frozen(self._schema.root, plain, self._data)
        found = changes.between(self._schema.root, former, self._data)
        if found:
            for watcher in tuple(self._watchers):
                watcher(found)
        return self._data

    def snapshot(self) -> Any:
        """As `Tree`."""
        return self._data

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """As `Tree`."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)


def _container(schema: Schema, path: str) -> Path:
    place = paths.parse(path)
    for depth in range(1, len(place) + 1):
        node = schema.node(paths.names(place[:depth]))
        if not isinstance(node, Container) or node.keys:
            raise ValueError(f"{path} is not the path of a container outside of lists")
    return place


def _writable(schema: Schema, path: str) -> Names:
    place = paths.names(paths.parse(path))
    node = schema.node(place)
    above = [schema.node(place[:depth]) for depth in range(1, len(place))]
    if (
        not isinstance(node, Container)
        or not node.config
        or any(isinstance(each, Container) and each.keys for each in above)
    ):
        raise ValueError(f"{path} is not the path of a container or list of configuration outside of other lists")
    return place


def _put(plain: dict[str, Any], place: Sequence[Step], members: Mapping[str, Any]) -> None:
    for step in place:
        inner = dict(plain.get(step.name) or {})
        plain[step.name], plain = inner, inner
    plain.update(members)
