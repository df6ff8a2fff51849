"""Reads TOML files into the configuration types, checks the whole file, and tells every error at once.

Types say what is allowed field by field; `checks` has what they cannot say. Where a field is missing or of a wrong
type, its table and those above it are not checked further, all others are.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from msgspec import inspect

from keyhaul.config.addresses import parse_address
from keyhaul.config.checks import check
from keyhaul.config.problems import ConfigurationError, Problem
from keyhaul.config.reading import read_bounded

__all__ = ["ConfigurationError", "load", "parse_address", "read", "resolve"]

Config = TypeVar("Config")

MAXIMUM_BYTES = 16 * 1024 * 1024
"""Greater files are refused unread."""

_INVALID = object()


def load(path: Path, type: type[Config]) -> Config:  # noqa: A002
    """Read and check a file.

    Raises:
        ConfigurationError: it cannot be read, is no TOML, or has errors; all of them are listed.
    """
    return read(read_bounded(path, MAXIMUM_BYTES), type, path)


def read(content: bytes, type: type[Config], path: Path) -> Config:  # noqa: A002
    """Check the content of a file; `path` names it in errors.

    Raises:
        ConfigurationError: as `load`.
    """
    try:
        tables = tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(path, [Problem("", "", f"line {line} is not UTF-8 text")]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(path, [Problem("", "", f"is not TOML: {error}")]) from None
    except RecursionError:
        raise ConfigurationError(path, [Problem("", "", "is not TOML: nested too deeply")]) from None
    walk = _Walk()
    config = walk.value(tables, inspect.type_info(type), (), "")
    if walk.problems or not isinstance(config, type):
        raise ConfigurationError(path, walk.problems)
    return config


def resolve(directory: Path, path: str) -> Path:
    """Return where a path of a configuration file points, `directory` being where that file is."""
    return Path(os.path.normpath(directory / path))


class _Walk:
    """One pass over a file's tables, alongside their types."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def value(self, value: Any, type_: inspect.Type, tables: tuple[str, ...], field: str) -> Any:
        """Return the typed value, or _INVALID where problems were noted."""
        match type_:
            case inspect.StructType():
                place = (*tables, field) if field else tables
                return self._struct(value, type_, place)
            case inspect.ListType() | inspect.VarTupleType():
                return self._list(value, type_.item_type, tables, field)
            case inspect.UnionType():
                (other,) = [member for member in type_.types if not isinstance(member, inspect.NoneType)]
                return self.value(value, other, tables, field)
        allowed = _mismatch(value, type_)
        if allowed is None:
            return value
        return self._note(tables, field, f"{_shown(value)} is not allowed ({allowed})")

    def _struct(self, value: Any, type_: inspect.StructType, tables: tuple[str, ...]) -> Any:
        if not isinstance(value, dict):
            return self._note(tables[:-1], tables[-1], f"{_shown(value)} is not allowed (a table is)")
        known = {field.encode_name: field for field in type_.fields}
        for name in value:
            if name not in known:
                self._note(tables, name, f"unknown (known: {', '.join(sorted(known))})")
        typed: dict[str, Any] = {}
        whole = True
        for name, field in known.items():
            if name in value:
                typed[field.name] = self.value(value[name], field.type, tables, name)
                whole = whole and typed[field.name] is not _INVALID
            elif field.required:
                whole = False
                table, missing = ((*tables, name), "") if _is_table(field.type) else (tables, name)
                self._note(table, missing, f"missing ({_allowed(field.type)})")
        if not whole:
            return _INVALID
        config = type_.cls(**typed)
        for problem in check(config):
            below = tuple(problem.table.split(".")) if problem.table else ()
            self.problems.append(Problem(_table((*tables, *below)), problem.field, problem.message))
        return config

    def _list(self, value: Any, item: inspect.Type, tables: tuple[str, ...], field: str) -> Any:
        if not isinstance(value, list):
            return self._note(tables, field, f"{_shown(value)} is not allowed (a list is)")
        elements = [self.value(element, item, tables, f"{field} {place}") for place, element in enumerate(value, 1)]
        return _INVALID if any(element is _INVALID for element in elements) else elements

    def _note(self, tables: tuple[str, ...], field: str, message: str) -> object:
        self.problems.append(Problem(_table(tables), field, message))
        return _INVALID


def _is_table(type_: inspect.Type) -> bool:
    item = type_.item_type if isinstance(type_, inspect.ListType) else type_
    return isinstance(item, inspect.StructType)


def _table(tables: tuple[str, ...]) -> str:
    return ".".join(tables)


def _mismatch(value: Any, type_: inspect.Type) -> str | None:
    """Return what is allowed where the value is not, else None."""
    match type_:
        case inspect.BoolType():
            fits = isinstance(value, bool)
        case inspect.IntType():
            fits = isinstance(value, int) and not isinstance(value, bool) and _in_bounds(value, type_)
        case inspect.FloatType():
            fits = isinstance(value, int | float) and not isinstance(value, bool) and _in_bounds(value, type_)
        case inspect.StrType():
            fits = isinstance(value, str) and (type_.pattern is None or re.search(type_.pattern, value) is not None)
        case inspect.LiteralType():
            fits = type(value) in (str, int) and value in type_.values
        case inspect.DictType():
            fits = isinstance(value, dict)
        case _:
            raise TypeError(f"configuration types have no {type_}")
    return None if fits else _allowed(type_)


def _in_bounds(value: float, type_: inspect.IntType | inspect.FloatType) -> bool:
    return (
        value == value  # not NaN
        and abs(value) != float("inf")
        and (type_.ge is None or value >= type_.ge)
        and (type_.gt is None or value > type_.gt)
        and (type_.le is None or value <= type_.le)
        and (type_.lt is None or value < type_.lt)
    )


def _allowed(type_: inspect.Type) -> str:
    match type_:
        case inspect.UnionType():
            return " or ".join(_allowed(member) for member in type_.types if not isinstance(member, inspect.NoneType))
        case inspect.StructType():
            return "a table"
        case inspect.ListType():
            return "an array of tables" if isinstance(type_.item_type, inspect.StructType) else "a list"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "a whole number" + _bounds(type_)
        case inspect.FloatType():
            return "a number" + _bounds(type_)
        case inspect.LiteralType():
            return ", ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in type_.values)
        case inspect.DictType():
            return "a table"
        case _:
            return "a string"


def _bounds(type_: inspect.IntType | inspect.FloatType) -> str:
    limits = [
        f"{words} {limit}"
        for words, limit in (
            ("at least", type_.ge),
            ("more than", type_.gt),
            ("at most", type_.le),
            ("less than", type_.lt),
        )
        if limit is not None
    ]
    return " of " + " and ".join(limits) if limits else ""


def _shown(value: Any) -> str:
    match value:
        case dict():
            return "a table"
        case list():
            return "a list"
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value if len(value) <= 60 else value[:57] + "..."}"'
        case _:
            return str(value)
