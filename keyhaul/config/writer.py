"""Writes configuration types as the TOML files that `loader` reads."""

from __future__ import annotations

import json
from typing import Any

import msgspec


def to_toml(config: msgspec.Struct, comment: str = "") -> str:
    """Return a configuration as TOML. Fields at their default are left out.

    Args:
        config: the configuration.
        comment: lines for the head of the file.
    """
    head = [f"# {line}".rstrip() for line in comment.splitlines()]
    body = "\n".join(_table(config, "")).strip("\n")
    return "\n".join([*head, "", body] if head else [body]) + "\n"


def _table(table: msgspec.Struct, name: str) -> list[str]:
    plain: list[str] = []
    below: list[str] = []
    for field in msgspec.structs.fields(table):
        value = getattr(table, field.name)
        place = f"{name}.{field.encode_name}" if name else field.encode_name
        if value is None or value == _default(field):
            continue
        if isinstance(value, msgspec.Struct):
            below += ["", f"[{place}]", *_table(value, place)]
        elif isinstance(value, list) and value and isinstance(value[0], msgspec.Struct):
            for element in value:
                below += ["", f"[[{place}]]", *_table(element, place)]
        else:
            plain.append(f"{field.encode_name} = {_value(value)}")
    return plain + below


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list():
            return "[" + ", ".join(_value(element) for element in value) + "]"
        case _:
            raise TypeError(f"{type(value)} has no TOML form here")
