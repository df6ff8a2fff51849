"""Set (gNMI section 3.4): deletes, then replaces, then updates, as one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from pygnmi.spec.v080 import gnmi_pb2

from keyhaul.agents.gnmi import paths, values
from keyhaul.agents.gnmi.data import BrokenData, keys_of
from keyhaul.agents.gnmi.errors import Code, Refused, malformed
from keyhaul.agents.gnmi.paths import Path, Step
from keyhaul.agents.gnmi.schema import Container, Leaf, Node, Schema
from keyhaul.agents.gnmi.tree import Edit, Names, Operation, Writer

MAXIMUM_OPERATIONS = 1024


@dataclass(slots=True)
class Plan:
    """What a SetRequest comes to."""

    edits: dict[Names, list[Edit]] = field(default_factory=dict)
    """By writer, in the order in which each was first named."""
    response: Any = field(default_factory=gnmi_pb2.SetResponse)
    """What is answered if all of it takes effect, without times."""


def plan(schema: Schema, writers: Mapping[Names, Writer], request: Any) -> Plan:
    """Read a SetRequest and check all of it that can be checked without its writers.

    Raises:
        Refused: INVALID_ARGUMENT for a malformed path or value and for state; UNIMPLEMENTED for what there is not;
            PERMISSION_DENIED for configuration that cannot be set here.
    """
    if len(request.delete) + len(request.replace) + len(request.update) > MAXIMUM_OPERATIONS:
        raise Refused(Code.RESOURCE_EXHAUSTED, f"at most {MAXIMUM_OPERATIONS} operations in a Set")
    prefix = request.prefix if request.HasField("prefix") else None
    making = _Making(schema, writers, Plan())
    for path in request.delete:
        making.delete(*_place(schema, path, prefix, entries=True))
        making.done(path, gnmi_pb2.UpdateResult.DELETE)
    for operation, number, parts in (
        (Operation.REPLACE, gnmi_pb2.UpdateResult.REPLACE, request.replace),
        (Operation.UPDATE, gnmi_pb2.UpdateResult.UPDATE, request.update),
    ):
        for part in parts:
            making.put(operation, *_place(schema, part.path, prefix), part.val)
            making.done(part.path, number)
    if prefix is not None:
        making.plan.response.prefix.CopyFrom(prefix)
    return making.plan


async def carry_out(planned: Plan, writers: Mapping[Names, Writer]) -> None:
    """Have the writers make all of a plan take effect, or none: what was done before a failure is taken back.

    Raises:
        Refused: a writer refused; nothing has changed.
    """
    async with AsyncExitStack() as taking_back:
        for names, edits in planned.edits.items():
            taking_back.push_async_callback(await writers[names].write(edits))
        taking_back.pop_all()


@dataclass(slots=True)
class _Making:
    schema: Schema
    writers: Mapping[Names, Writer]
    plan: Plan
    merged: dict[Path, int] = field(default_factory=dict)
    """Where among its writer's edits the update of a path is."""

    def done(self, path: Any, operation: int) -> None:
        self.plan.response.response.add(path=path, op=operation)

    def delete(self, place: Path, node: Node) -> None:
        if not node.config:
            raise malformed(f"{_shown(place)} is state and cannot be deleted")
        for names in self._concerned(place):
            below = tuple(Step(name) for name in names[len(place) :])
            self._add(names, Edit(Operation.DELETE, (*place, *below), None))

    def put(self, operation: Operation, place: Path, node: Node, message: Any) -> None:
        if not node.config:
            raise malformed(f"{_shown(place)} is state and cannot be set")
        module = place[0].name.partition(":")[0] if place else ""
        value = values.decoded(node, message, module)
        value = _with_keys(node, place, value)
        if (state := next(_state(node, value), None)) is not None:
            raise malformed(f"{_shown(place)}: {state} is state and cannot be set")
        concerned = self._concerned(place)
        if len(concerned[0]) > len(place):
            for names in concerned:
                value = self._above(operation, names, place, value)
            self._nothing_left(place, node, value)
        elif len(concerned[0]) == len(place):
            self._add(concerned[0], Edit(operation, place, value))
        else:
            self._inside(operation, concerned[0], place, node, value)

    def _concerned(self, place: Path) -> list[Names]:
        """Return the one writer at or above a place, or all below it."""
        names = paths.names(place)
        found = [each for each in self.writers if each[: len(names)] == names or names[: len(each)] == each]
        if not found:
            raise Refused(Code.PERMISSION_DENIED, f"{_shown(place)} cannot be set over gNMI")
        return found

    def _inside(self, operation: Operation, names: Names, place: Path, node: Node, value: Any) -> None:
        if operation is Operation.REPLACE and isinstance(node, Container):
            self._add(names, Edit(operation, place, value))
            return
        for depth in range(len(place), len(names), -1):
            step = place[depth - 1]
            value = {step.name: {step.keys: value} if step.keys else value}
            above = self.schema.node(paths.names(place[: depth - 1]))
            assert above is not None
            value = _with_keys(above, place[: depth - 1], value)
        self._add(names, Edit(Operation.UPDATE, place[: len(names)], value))

    def _above(self, operation: Operation, names: Names, place: Path, value: Any) -> Any:
        """Give a writer its part of a value that stands above it; return the value without that part."""
        below = names[len(place) :]
        part, value = _taken(value, below)
        node = self.schema.node(names)
        assert isinstance(node, Container)
        at = (*place, *(Step(name) for name in below))
        if not node.keys:
            if part is not None or operation is Operation.REPLACE:
                self._add(names, Edit(operation, at, part or {}))
            return value
        if operation is Operation.REPLACE:
            self._add(names, Edit(Operation.DELETE, at, None))
        for keys, entry in (part or {}).items():
            self._add(names, Edit(operation, (*at[:-1], Step(at[-1].name, keys)), entry))
        return value

    def _nothing_left(self, place: Path, node: Node, value: Any) -> None:
        left = next(_leaves(node, value), None)
        if left is not None:
            raise Refused(Code.PERMISSION_DENIED, f"{_shown(place)}: {left} cannot be set over gNMI")

    def _add(self, names: Names, edit: Edit) -> None:
        edits = self.plan.edits.setdefault(names, [])
        if edit.operation is Operation.UPDATE:
            former = self.merged.get(edit.path)
            if former is not None:
                edits[former] = Edit(edit.operation, edit.path, _merged(edits[former].value, edit.value))
                return
            self.merged[edit.path] = len(edits)
        edits.append(edit)


def _place(schema: Schema, path: Any, prefix: Any, *, entries: bool = False) -> tuple[Path, Node]:
    (pattern, *others), _, exact = paths.resolve(schema, path, prefix)
    every = entries and not others and bool(pattern) and all(value is None for _, value in pattern[-1].keys)
    if not exact and not (every and all(value is not None for match in pattern[:-1] for _, value in match.keys)):
        raise malformed("the path of a Set has no wildcards and names every key")
    steps = tuple(
        Step(match.name, tuple((key, value) for key, value in match.keys if value is not None)) for match in pattern
    )
    node = schema.node(paths.names(steps))
    assert node is not None
    return steps, node


def _with_keys(node: Node, place: Path, value: Any) -> Any:
    if not isinstance(node, Container) or not node.keys:
        return value
    own = dict(value)
    for key, text in place[-1].keys:
        leaf = node.children[key]
        assert isinstance(leaf, Leaf)
        own.setdefault(key, leaf.type.parse(text))
    try:
        if keys_of(node, own) != place[-1].keys:
            raise malformed(f"{_shown(place)}: the value has other keys than the path")
    except BrokenData as error:
        raise malformed(f"{_shown(place)}: {error}") from None
    return own


def _state(node: Node, value: Any) -> Iterator[str]:
    if not node.config:
        yield node.name
    elif isinstance(node, Container):
        for name, member in value.items():
            child = node.children[name]
            if isinstance(child, Container) and child.keys:
                for entry in member.values():
                    yield from _state(child, entry)
            else:
                yield from _state(child, member)


def _leaves(node: Node, value: Any) -> Iterator[str]:
    if isinstance(node, Leaf):
        yield node.name
    elif isinstance(node, Container) and value:
        for name, member in value.items():
            child = node.children[name]
            if isinstance(child, Container) and child.keys:
                yield from (child.name for _ in member)
            else:
                yield from _leaves(child, member)


def _taken(value: Any, below: Names) -> tuple[Any, Any]:
    if below[0] not in value:
        return None, value
    if len(below) == 1:
        return value[below[0]], {name: member for name, member in value.items() if name != below[0]}
    part, rest = _taken(value[below[0]], below[1:])
    return part, {**value, below[0]: rest}


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {**old, **{name: _merged(old[name], member) if name in old else member for name, member in new.items()}}


def _shown(place: Path) -> str:
    return paths.text(place)[:200]
