"""Paths of gNMI (specification section 2.2.2): read from messages and against a schema, compared, written.

A path is a tuple of steps, each with its keys sorted by name. Of the forms that clients write, `/a/b`, `/module:a/b`
and origin `module` with either, the first step of a path in memory is always `module:a`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from pygnmi.spec.v080 import gnmi_pb2

from keyhaul.agents.gnmi.errors import malformed, unimplemented
from keyhaul.agents.gnmi.schema import Container, Leaf, Node, Schema
from keyhaul.agents.gnmi.types import WrongValue

ANY = "*"
BELOW = "..."
RFC7951 = "rfc7951"
"""An origin that says only that names carry their modules."""

MAXIMUM_STEPS = 32
MAXIMUM_PATTERNS = 256


class Step(NamedTuple):
    """One element of a path."""

    name: str
    keys: tuple[tuple[str, str], ...] = ()
    """Name and value of each key, sorted by name. None given for a list: all of its entries."""


Path = tuple[Step, ...]


class Match(NamedTuple):
    """One element of a pattern: every key of a list is there, with None for any value."""

    name: str
    keys: tuple[tuple[str, str | None], ...] = ()

    def covers(self, step: Step) -> bool:
        """Whether a path's step is among what this matches."""
        return self.name == step.name and (
            self.keys == step.keys
            or all(value is None or value == other for (_, value), (_, other) in zip(self.keys, step.keys, strict=True))
        )


Pattern = tuple[Match, ...]


class Asked(NamedTuple):
    """A path as a client asked for it."""

    patterns: tuple[Pattern, ...]
    """What it comes to in the schema: one, or several for wildcards in names."""
    origin: str
    """As the client gave it: answers give it back."""
    exact: bool
    """Whether it names one node, without any wildcard."""


def step(name: str, **keys: str) -> Step:
    """Return a step; underscores in the names of keys stand for hyphens."""
    return Step(name, tuple(sorted((key.replace("_", "-"), value) for key, value in keys.items())))


def covers(pattern: Pattern, path: Path) -> bool:
    """Whether a path is what the pattern matches, or below it."""
    return len(pattern) <= len(path) and all(
        match.covers(taken) for match, taken in zip(pattern, path[: len(pattern)], strict=True)
    )


def names(path: Iterable[Step | Match]) -> tuple[str, ...]:
    """Return the names of a path, which lead to its node in a schema."""
    return tuple(taken.name for taken in path)


def text(path: Path) -> str:
    """Write a path as text (gNMI path conventions)."""
    return "/" + "/".join(
        taken.name + "".join(f"[{key}={_escaped(value)}]" for key, value in taken.keys) for taken in path
    )


def from_proto(message: Any) -> Path:
    """Read a path as it stands, without a schema; what a client does with answers: those that come often are kept."""
    encoded = message.SerializeToString()
    return _kept(encoded) if len(encoded) <= _LONGEST_KEPT else _read(encoded)


def _read(encoded: bytes) -> Path:
    elems = gnmi_pb2.Path.FromString(encoded).elem
    return tuple([Step(elem.name, tuple(sorted(elem.key.items())) if elem.key else ()) for elem in elems])


_LONGEST_KEPT = 256
"""Bytes of a path that is kept: no peer makes much be kept."""

_kept = lru_cache(maxsize=65_536)(_read)


def to_proto(path: Path, origin: str = "", target: str = "") -> Any:
    """Write a path.

    Args:
        path: the path.
        origin: where it is a module's name, the first step goes without it.
        target: for prefixes only.
    """
    message = gnmi_pb2.Path(origin=origin, target=target)
    for place, taken in enumerate(path):
        name = taken.name.removeprefix(f"{origin}:") if place == 0 and origin else taken.name
        message.elem.add(name=name, key=dict(taken.keys))
    return message


def parse(path: str) -> Path:
    """Read a path from text, e.g. ``/keyhaul-ckms:carrier/links/link[neighbour=ckms-9]``; ``\\]`` stands for a bracket.

    Raises:
        ValueError: brackets do not match, or an element has no name.
    """
    steps = []
    for element in _split(path):
        name, bracket, rest = element.partition("[")
        keys = []
        while bracket:
            key, equals, rest = rest.partition("=")
            end = _closing(rest)
            if not key or not equals or end is None:
                raise ValueError(f"{path!r} is not a path: {element!r} has a broken key")
            keys.append((key, rest[:end].replace("\\]", "]").replace("\\\\", "\\")))
            rest = rest[end + 1 :]
            bracket, rest = rest[:1], rest[1:]
            if bracket not in ("", "["):
                raise ValueError(f"{path!r} is not a path: {element!r} goes on after its keys")
        if not name:
            raise ValueError(f"{path!r} is not a path: an element has no name")
        steps.append(Step(name, tuple(sorted(keys))))
    return tuple(steps)


def resolve(schema: Schema, path: Any, prefix: Any = None) -> Asked:
    """Read a path, and a prefix before it, against the schema.

    Raises:
        Refused: malformed (INVALID_ARGUMENT), or nothing that this target has (UNIMPLEMENTED).
    """
    messages = [path] if prefix is None else [prefix, path]
    if path.target:
        raise malformed("target may be set in a prefix only (section 2.2.2.1)")
    if any(message.element for message in messages):
        raise unimplemented("paths of strings (`element`) are deprecated: use `elem`")
    origins = {message.origin for message in messages} - {""}
    if len(origins) > 1 or (origins and len(messages) == 2 and all(message.origin for message in messages)):
        raise malformed("origin may be set in the prefix or in the path, not in both")
    origin = origins.pop() if origins else ""
    elements = [elem for message in messages for elem in message.elem]
    if len(elements) > MAXIMUM_STEPS:
        raise malformed(f"a path has at most {MAXIMUM_STEPS} elements")
    asked = [(elem.name, dict(elem.key)) for elem in elements]
    if any(not name for name, _ in asked):
        raise malformed("an element of the path has no name")
    if origin not in ("", RFC7951):
        if not schema.has_module(origin):
            raise unimplemented(f"this target has nothing of the origin {origin!r}")
        if asked:
            asked[0] = _in_module(asked[0], origin)
        elif sum(name.startswith(f"{origin}:") for name in schema.root.children) == 1:
            asked = [(next(name for name in schema.root.children if name.startswith(f"{origin}:")), {})]
    if sum(name == BELOW for name, _ in asked) > 1:
        raise unimplemented(f"more than one {BELOW} in a path")
    wildcards = any(name in (ANY, BELOW) for name, _ in asked)
    patterns = tuple(dict.fromkeys(_expand(schema, schema.root, (), asked)))
    if not patterns:
        raise unimplemented(f"this target has no {_shown(asked)}")
    exact = not wildcards and all(
        value is not None for pattern in patterns for match in pattern for _, value in match.keys
    )
    return Asked(patterns, origin, exact)


def _expand(schema: Schema, node: Node, so_far: Pattern, rest: list[tuple[str, dict[str, str]]]) -> Iterator[Pattern]:
    if not rest:
        yield so_far
        return
    if not isinstance(node, Container):
        return
    (name, keys), following = rest[0], rest[1:]
    if name == BELOW:
        if keys:
            raise malformed(f"{BELOW} has no keys")
        yield from _limited(_expand(schema, node, so_far, following) if following else iter((so_far,)))
        for child in node.children:
            yield from _limited(_expand(schema, node.children[child], (*so_far, _match(node, child, {})), rest))
        return
    for child in node.children if name == ANY else _named(schema, node, so_far, name):
        match = _match(node, child, keys if name != ANY else {})
        yield from _limited(_expand(schema, node.children[child], (*so_far, match), following))


def _limited(patterns: Iterator[Pattern]) -> Iterator[Pattern]:
    for count, pattern in enumerate(patterns):
        if count >= MAXIMUM_PATTERNS:
            raise malformed("the wildcards of the path match too much")
        yield pattern


def _named(schema: Schema, node: Container, so_far: Pattern, name: str) -> tuple[str, ...]:
    if node is schema.root:
        top = schema.top(name)
        return () if top is None else (top,)
    plain = name.removeprefix(f"{so_far[0].name.partition(':')[0]}:")
    return (plain,) if plain in node.children else ()


def _match(node: Container, name: str, keys: dict[str, str]) -> Match:
    child = node.children[name]
    wanted = child.keys if isinstance(child, Container) else ()
    if unknown := sorted(set(keys) - set(wanted)):
        raise malformed(f"{name} has no key {unknown[0]!r}")
    found: list[tuple[str, str | None]] = []
    for key in wanted:
        value = keys.get(key, ANY)
        found.append((key, None if value == ANY else _canonical(child, key, value)))
    return Match(name, tuple(found))


def _canonical(node: Node, key: str, value: str) -> str:
    assert isinstance(node, Container)
    leaf = node.children[key]
    assert isinstance(leaf, Leaf)
    try:
        return leaf.type.text(leaf.type.parse(value))
    except WrongValue as error:
        raise malformed(f"{node.name}[{key}]: {error}") from None


def _in_module(element: tuple[str, dict[str, str]], origin: str) -> tuple[str, dict[str, str]]:
    name, keys = element
    if name in (ANY, BELOW):
        raise unimplemented("a wildcard directly under an origin")
    module, colon, _ = name.partition(":")
    if colon and module != origin:
        raise malformed(f"{name} is not of the origin {origin}")
    return (name if colon else f"{origin}:{name}"), keys


def _shown(asked: list[tuple[str, dict[str, str]]]) -> str:
    return text(tuple(Step(name, tuple(sorted(keys.items()))) for name, keys in asked))[:200]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("]", "\\]")


def _closing(rest: str) -> int | None:
    place = 0
    while place < len(rest):
        if rest[place] == "\\":
            place += 2
        elif rest[place] == "]":
            return place
        else:
            place += 1
    return None


def _split(path: str) -> list[str]:
    elements, current, inside, escaped = [], "", False, False
    for character in path:
        if character == "/" and not inside:
            elements.append(current)
            current = ""
            continue
        current += character
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "[":
            inside = True
        elif character == "]":
            inside = False
    elements.append(current)
    if elements[0] == "":
        elements = elements[1:]
    return [] if elements == [""] else elements
