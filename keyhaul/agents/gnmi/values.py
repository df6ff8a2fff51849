"""Values on the wire: JSON and JSON_IETF (gNMI section 2.3.1, RFC 7951), and the scalars of TypedValue in Set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from pygnmi.spec.v080 import gnmi_pb2

from keyhaul.agents.gnmi.data import BrokenData, Keys, keys_of
from keyhaul.agents.gnmi.errors import malformed, unimplemented
from keyhaul.agents.gnmi.paths import Path
from keyhaul.agents.gnmi.schema import Container, Leaf, Node
from keyhaul.agents.gnmi.types import WrongValue

JSON = gnmi_pb2.JSON
JSON_IETF = gnmi_pb2.JSON_IETF
ENCODINGS = (JSON, JSON_IETF)

_SCALARS = {"string_val", "int_val", "uint_val", "bool_val", "bytes_val"}


def encoding(number: int) -> int:
    """Check an encoding that a client asks for.

    Raises:
        Refused: UNIMPLEMENTED, as section 2.3 demands.
    """
    if number not in ENCODINGS:
        known = number in gnmi_pb2.Encoding.values()
        name = gnmi_pb2.Encoding.Name(number) if known else str(number)
        raise unimplemented(f"encoding {name}: this target has JSON and JSON_IETF")
    return number


def encoded(path: Path, node: Node, data: Any, *, ietf: bool) -> bytes:
    """Return the JSON of the data at a path.

    In JSON_IETF the members of the outermost object carry their module (RFC 7951 section 4).
    """
    value = _plain(node, data, ietf)
    if ietf and path and isinstance(value, dict):
        module = path[0].name.partition(":")[0]
        value = {f"{module}:{name}": member for name, member in value.items()}
    return msgspec.json.encode(value)


def typed(value: bytes, number: int) -> Any:
    """Put JSON into a TypedValue."""
    return gnmi_pb2.TypedValue(json_ietf_val=value) if number == JSON_IETF else gnmi_pb2.TypedValue(json_val=value)


def decoded(node: Node, message: Any, module: str) -> Any:
    """Read a TypedValue for a node of a tree, in the form of `data`; a list's entry may leave out its keys.

    Raises:
        Refused: INVALID_ARGUMENT for a value that the schema does not allow, UNIMPLEMENTED for another encoding.
    """
    kind = message.WhichOneof("value")
    try:
        if kind in ("json_val", "json_ietf_val"):
            return _read(node, _json(getattr(message, kind)), module, ietf=kind == "json_ietf_val", entry=True)
        if kind in _SCALARS and isinstance(node, Leaf) and not node.many:
            return node.type.check(getattr(message, kind))
    except (WrongValue, BrokenData) as error:
        raise malformed(f"{node.name}: {error}") from None
    if kind is None:
        raise malformed(f"{node.name}: no value")
    raise unimplemented(f"{node.name}: a value as {kind}: this target takes JSON and JSON_IETF")


def _json(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise WrongValue("the value is no JSON") from None


def _plain(node: Node, data: Any, ietf: bool) -> Any:
    if isinstance(node, Leaf):
        encode = node.type.encode
        return [encode(each, ietf=ietf) for each in data] if node.many else encode(data, ietf=ietf)
    assert isinstance(node, Container)
    members: dict[str, Any] = {}
    for name, value in data.items():
        child = node.children[name]
        if isinstance(child, Container) and child.keys:
            members[name] = [_plain(child, entry, ietf) for entry in value.values()]
        else:
            members[name] = _plain(child, value, ietf)
    return members


def _read(node: Node, raw: Any, module: str, *, ietf: bool, entry: bool = False) -> Any:
    if isinstance(node, Leaf):
        if not node.many:
            return node.type.decode(raw, ietf=ietf)
        if not isinstance(raw, list):
            raise WrongValue("expected an array")
        return tuple(node.type.decode(each, ietf=ietf) for each in raw)
    assert isinstance(node, Container)
    if not node.keys or entry:
        return _members(node, raw, module, ietf)
    if not isinstance(raw, list):
        raise WrongValue("expected an array of entries")
    entries: dict[Keys, Any] = {}
    for each in raw:
        members = _members(node, each, module, ietf)
        keys = keys_of(node, members, node.name)
        if keys in entries:
            raise WrongValue("two entries with the same keys")
        entries[keys] = members
    return entries


def _members(node: Container, raw: Any, module: str, ietf: bool) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise WrongValue("expected an object")
    members = {}
    for name, value in raw.items():
        plain = name if name in node.children else name.removeprefix(f"{module}:")
        child = node.children.get(plain)
        if child is None:
            raise WrongValue(f"no member {name[:64]!r} in the schema")
        if plain in members:
            raise WrongValue(f"{plain} is there twice")
        try:
            members[plain] = _read(child, value, plain.partition(":")[0] if ":" in plain else module, ietf=ietf)
        except WrongValue as error:
            raise WrongValue(f"{plain}: {error}") from None
    return members
