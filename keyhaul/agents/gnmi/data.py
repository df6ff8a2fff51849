"""Data as a schema has it, kept so that it can be compared and shared: nested mappings that nobody changes.

A container is a dict by name, a list a dict by its entries' keys (as in a path's step), a leaf-list a tuple. What is
absent is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from keyhaul.agents.gnmi.paths import Path, Pattern, Step
from keyhaul.agents.gnmi.schema import Container, Leaf, Node
from keyhaul.agents.gnmi.types import WrongValue

Keys = tuple[tuple[str, str], ...]
Found = tuple[Path, Node, Any]
"""Where it is, what the schema says of it, the data."""


class BrokenData(ValueError):
    """Data that its schema does not allow; the message says where."""


def frozen(node: Node, value: Any, former: Any = None, where: str = "") -> Any:
    """Return plain data (mappings, iterables of entries, values) in the form of this module.

    Members whose value is None are absent. Entries of a list carry their keys as members.

    Args:
        node: what the schema says of it.
        value: the plain data.
        former: what stood there before: of it, what is the same is returned as the same object, without another look.
        where: for messages.

    Raises:
        BrokenData: the schema does not allow it.
    """
    if former is not None and value == former:
        return former
    where = f"{where}/{node.name}"
    if isinstance(node, Leaf):
        try:
            checked = tuple(node.type.check(each) for each in value) if node.many else node.type.check(value)
        except (WrongValue, TypeError) as error:
            raise BrokenData(f"{where}: {error}") from None
        return former if former == checked else checked
    assert isinstance(node, Container)
    return _entries(node, value, former, where) if node.keys else _members(node, value, former, where)


def keys_of(node: Container, entry: Mapping[str, Any], where: str = "") -> Keys:
    """Return the keys of a list's entry as paths have them.

    Raises:
        BrokenData: a key is missing.
    """
    keys = []
    for key in node.keys:
        if key not in entry:
            raise BrokenData(f"{where}: an entry without its key {key}")
        leaf = node.children[key]
        assert isinstance(leaf, Leaf)
        keys.append((key, leaf.type.text(entry[key])))
    return tuple(keys)


def _entries(node: Container, value: Any, former: Any, where: str) -> dict[Keys, Any]:
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise BrokenData(f"{where}: expected entries")
    entries: dict[Keys, Any] = {}
    before = iter((former or {}).items())
    same = True
    for each in value:
        # Entries mostly come in the order in which they came before.
        keys, entry = next(before, ((), None))
        if each != entry:
            made = _members(node, each, entry, where)
            if made is not entry:
                keys, entry, same = keys_of(node, made, where), made, False
        if keys in entries:
            raise BrokenData(f"{where}: two entries with the keys {keys}")
        entries[keys] = entry
    return former if former is not None and same and len(entries) == len(former) else entries


def _members(node: Container, value: Any, former: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise BrokenData(f"{where}: expected members by name")
    before = former or {}
    members = {}
    for name, member in value.items():
        child = node.children.get(name)
        if child is None:
            raise BrokenData(f"{where}: no member {name!r} in the schema")
        if member is not None:
            members[name] = frozen(child, member, before.get(name), where)
    same = members.keys() == before.keys() and all(member is before[name] for name, member in members.items())
    return former if former is not None and same else members


def at(data: Any, path: Path) -> Any:
    """Return the data at a path, None if there is none. A list's step without keys gives all entries."""
    for step in path:
        if not isinstance(data, dict):
            return None
        data = data.get(step.name)
        if step.keys and data is not None:
            data = data.get(step.keys)
    return data


def matching(schema: Container, data: Any, pattern: Pattern) -> Iterator[Found]:
    """Find what a pattern matches: containers, entries of lists and leaves that are there."""
    yield from _matching(schema, data, pattern, ())


def told(found: Found) -> Iterator[Found]:
    """Split what was found into what telemetry tells as one update each: units, and leaves outside of them."""
    path, node, data = found
    if isinstance(node, Leaf) or (isinstance(node, Container) and node.unit and path):
        yield found
        return
    assert isinstance(node, Container)
    for name, value in data.items():
        yield from _told_below(path, node.children[name], value)


def only(node: Node, data: Any, *, config: bool) -> Any:
    """Return the part that is configuration, or the part that is state (with the keys of lists); None if none is."""
    if isinstance(node, Leaf):
        return data if node.config is config else None
    assert isinstance(node, Container)
    members = {}
    for name, value in data.items():
        child = node.children[name]
        kept: Any
        if isinstance(child, Container) and child.keys:
            entries = {keys: only(child, entry, config=config) for keys, entry in value.items()}
            kept = {keys: entry for keys, entry in entries.items() if entry is not None} or None
        else:
            kept = only(child, value, config=config)
        if kept is not None:
            members[name] = kept
    if not members:
        return None
    return {**{key: data[key] for key in node.keys}, **members}


def _matching(node: Container, data: Any, pattern: Pattern, so_far: Path) -> Iterator[Found]:
    if not pattern:
        yield so_far, node, data
        return
    match, rest = pattern[0], pattern[1:]
    child, value = node.children[match.name], data.get(match.name)
    if value is None:
        return
    if isinstance(child, Leaf):
        yield (*so_far, Step(match.name)), child, value
        return
    assert isinstance(child, Container)
    if not child.keys:
        yield from _matching(child, value, rest, (*so_far, Step(match.name)))
        return
    if all(wanted is not None for _, wanted in match.keys):
        entry = value.get(match.keys)
        if entry is not None:
            yield from _matching(child, entry, rest, (*so_far, Step(match.name, match.keys)))  # type: ignore[arg-type]
        return
    for keys, entry in value.items():
        if match.covers(Step(match.name, keys)):
            yield from _matching(child, entry, rest, (*so_far, Step(match.name, keys)))


def _told_below(path: Path, node: Node, value: Any) -> Iterator[Found]:
    if isinstance(node, Container) and node.keys:
        for keys, entry in value.items():
            yield from told(((*path, Step(node.name, keys)), node, entry))
    else:
        yield from told(((*path, Step(node.name)), node, value))
