"""Writes the OpenAPI 3.1 documents of the interfaces between services from the table of operations and its messages.

``python -m keyhaul.transport.openapi`` writes ``proto/ROLE.openapi.json`` for each role that serves something;
with ``--check`` it only tells whether the files there are still what it would write.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec

from keyhaul.identity.names import Role
from keyhaul.transport.messages.base import PROTOCOL_VERSION, STATUS_OF_ERROR, ErrorReply, Message
from keyhaul.transport.messages.link import Sealed
from keyhaul.transport.operations import OPERATIONS, REVERSED, Operation
from keyhaul.transport.serving import LONGEST_DEADLINE

Document = dict[str, Any]

_REFERENCE = "#/components/schemas/{name}"


def roles() -> list[Role]:
    """Return the roles that serve operations, in the order of their names."""
    return sorted({server for operation in OPERATIONS.values() for _, server in operation.pairs})


def document(role: Role) -> Document:
    """Return the OpenAPI document of what a role serves."""
    served = [operation for operation in OPERATIONS.values() if any(server == role for _, server in operation.pairs)]
    kinds: list[type[Message]] = [ErrorReply]
    for operation in served:
        kinds += [operation.request, operation.reply, *([Sealed] if operation.sealed else [])]
    _, schemas = msgspec.json.schema_components(dict.fromkeys(kinds), ref_template=_REFERENCE)
    for kind in _structs(kinds):
        _complete(schemas[kind.__name__], kind)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Keyhaul: operations of the role {role}",
            "version": str(PROTOCOL_VERSION),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": _introduction(role),
        },
        "security": [{"service": []}],
        "paths": {operation.path: {"post": _operation(operation, role)} for operation in served},
        "components": {
            "securitySchemes": {
                "service": {
                    "type": "mutualTLS",
                    "description": "TLS 1.3, X25519MLKEM768, ML-DSA-65 certificates; the caller's URI subject "
                    "alternative name spiffe://DOMAIN/ROLE/NODE says who it is.",
                }
            },
            "responses": {
                "Refusal": {"description": _refusals(), "content": _content(ErrorReply)},
            },
            "schemas": dict(sorted(schemas.items())),
        },
    }


def rendered(role: Role) -> str:
    """Return the document as it stands in its file."""
    return json.dumps(document(role), indent=2) + "\n"


def drifted(directory: Path) -> list[Path]:
    """Return the files in a directory that are missing or not what would be written."""
    wrong = []
    for role in roles():
        path = directory / f"{role}.openapi.json"
        if not path.is_file() or path.read_text() != rendered(role):
            wrong.append(path)
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Write or check the files; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m keyhaul.transport.openapi", description="Writes proto/*.openapi.json."
    )
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 if a file is not up to date")
    parser.add_argument("--directory", type=Path, default=Path("proto"), help="where the files are (default: proto)")
    options = parser.parse_args(arguments)
    wrong = drifted(options.directory)
    for path in wrong:
        if options.check:
            print(f"{path} is not up to date: run python -m keyhaul.transport.openapi", file=sys.stderr)
        else:
            path.write_text(rendered(Role(path.name.partition(".")[0])))
            print(f"wrote {path}")
    return 1 if wrong and options.check else 0


def _introduction(role: Role) -> str:
    text = (
        "HTTP/2 over mutually authenticated TLS. Each message carries the protocol version `v`; unknown fields are "
        "ignored unless their names stand in `critical`."
    )
    if any(server == role for _, server in REVERSED):
        text += (
            f" The {role} dials (ALPN keyhaul-reverse) and is called on that connection: its TLS client is the "
            "HTTP/2 server."
        )
    return text


def _operation(operation: Operation[Message, Message], role: Role) -> Document:
    described: Document = {
        "operationId": operation.name,
        "summary": _first_line(operation.request),
        "parameters": [
            {
                "name": "keyhaul-deadline-ms",
                "in": "header",
                "required": False,
                "description": f"Milliseconds that the caller will wait; {LONGEST_DEADLINE * 1000:.0f} at most count.",
                "schema": {"type": "integer", "minimum": 1},
            }
        ],
        "requestBody": {"required": True, "content": _content(Sealed if operation.sealed else operation.request)},
        "responses": {
            **(
                {"204": {"description": "Taken."}}
                if operation.one_way
                else {
                    "200": {
                        "description": "Done.",
                        "content": _content(Sealed if operation.sealed else operation.reply),
                    }
                }
            ),
            "default": {"$ref": "#/components/responses/Refusal"},
        },
        "x-keyhaul-callers": sorted(caller for caller, server in operation.pairs if server == role),
    }
    if operation.sealed:
        inside: Document = {"request": _schema(operation.request)}
        if not operation.one_way:
            inside["reply"] = _schema(operation.reply)
        described["x-keyhaul-sealed"] = inside
    return described


def _schema(kind: type[Message]) -> Document:
    return {"$ref": _REFERENCE.format(name=kind.__name__)}


def _content(kind: type[Message]) -> Document:
    return {"application/json": {"schema": _schema(kind)}}


def _refusals() -> str:
    return "Refused. HTTP status by code: " + ", ".join(
        f"{code.value} {status}" for code, status in STATUS_OF_ERROR.items()
    )


def _first_line(kind: type[Message]) -> str:
    return (inspect.getdoc(kind) or kind.__name__).partition("\n")[0]


def _structs(kinds: list[type[Message]]) -> list[type[msgspec.Struct]]:
    """Every structure that the messages are made of."""
    found: dict[type[msgspec.Struct], None] = {}

    def visit(kind: Any) -> None:
        if isinstance(kind, msgspec.inspect.StructType):
            if kind.cls not in found:
                found[kind.cls] = None
                for field in kind.fields:
                    visit(field.type)
        elif isinstance(kind, msgspec.inspect.UnionType):
            for member in kind.types:
                visit(member)
        elif isinstance(kind, msgspec.inspect.CollectionType):
            visit(kind.item_type)

    for kind in kinds:
        visit(msgspec.inspect.type_info(kind))
    return list(found)


def _complete(schema: Document, kind: type[msgspec.Struct]) -> None:
    """Add what msgspec's schema does not say: what the fields mean, and that a version is always there."""
    schema["description"] = inspect.getdoc(kind) or ""
    meanings: dict[str, str] = {}
    for ancestor in reversed(kind.__mro__):
        if issubclass(ancestor, msgspec.Struct) and ancestor is not msgspec.Struct:
            meanings.update(_field_docstrings(ancestor))
    for name, field in schema["properties"].items():
        if name in meanings:
            if "$ref" in field:
                field = schema["properties"][name] = {"allOf": [field]}
            field["description"] = meanings[name]
    if issubclass(kind, Message):
        schema["properties"]["v"] = {"const": PROTOCOL_VERSION, "description": "The protocol version."}
        schema["required"] = ["v", *schema.get("required", [])]


def _field_docstrings(kind: type) -> dict[str, str]:
    """The string literals that stand below the fields of a class."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            found[field.target.id] = inspect.cleandoc(below.value.value)
    return found


if __name__ == "__main__":
    sys.exit(main())
