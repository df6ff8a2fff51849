"""The schemas that targets serve are those of the YANG modules, and what targets say validates against them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from yangson.exceptions import YangsonException
from yangson.schemanode import ContainerNode, InternalNode, LeafListNode, LeafNode, ListNode

from keyhaul.agents.gnmi import values
from keyhaul.agents.gnmi.models import ckms, etsi015
from keyhaul.agents.gnmi.schema import Container, Leaf, Module, Node, Schema
from keyhaul.agents.gnmi.types import Integer
from keyhaul.agents.signing import SIGNATURE
from keyhaul.agents.statements import MAXIMUM_BODY
from tests.keyhaul.agents.gnmi.carrier import Carrier
from tests.keyhaul.agents.gnmi.yang import PROTO, both_models, own_model, validate, with_etsi


def test_the_module_is_strictly_valid_yang_and_clean() -> None:
    command = [str(Path(sys.executable).parent / "pyang"), "--strict", "--lint", "--max-line-length", "72"]
    checked = subprocess.run(
        [*command, "--lint-ensure-hyphenated-names", str(PROTO / "keyhaul-ckms.yang")], capture_output=True, text=True
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_schema_is_exactly_the_modules() -> None:
    model = own_model()
    top = model.get_data_node(f"/{ckms.TOP}")
    assert described(ckms.MODULE.top[0], Schema([ckms.MODULE]).node((ckms.TOP,))) == of_yang(top)


@with_etsi
def test_what_is_served_of_etsi_is_as_in_its_module() -> None:
    theirs = of_yang(both_models().get_data_node(f"/{etsi015.TOP}"))
    ours = described(etsi015.MODULE.top[0], Schema([etsi015.MODULE]).node((etsi015.TOP,)))
    assert ours.items() <= theirs.items()
    left_out = {path.rpartition("/")[2] for path in theirs.keys() - ours.keys()}
    assert left_out == {"server_app_id", "client_app_id"}


def test_instances_validate(carrier: Carrier) -> None:
    carrier.book.held[18] = {"serial": 18, "body": b"{}", "signature": bytes(SIGNATURE)}
    carrier.entries.append({"previous": "ckms-8", "label": "0123456789abcdef", "remaining": 3, "serial": 18})
    data = carrier.tree.refresh()
    root = {ckms.TOP: data[ckms.TOP]}
    validate(own_model(), values.encoded((), carrier.tree.schema.root, root, ietf=True))


@with_etsi
def test_instances_validate_with_etsi(carrier: Carrier) -> None:
    validate(both_models(), values.encoded((), carrier.tree.schema.root, carrier.tree.refresh(), ietf=True))


@with_etsi
def test_the_validator_would_notice(carrier: Carrier) -> None:
    raw = json.loads(values.encoded((), carrier.tree.schema.root, carrier.tree.refresh(), ietf=False))
    with pytest.raises(YangsonException, match="expected decimal64 value"):
        validate(both_models(), json.dumps(raw).encode())


def described(top: Container, handed_down: Node | None) -> dict[str, Any]:
    assert isinstance(handed_down, Container)
    found: dict[str, Any] = {}

    def walk(node: Node, path: str) -> None:
        if isinstance(node, Leaf):
            wide = isinstance(node.type, Integer) and node.type.wide
            found[path] = ("leaf-list" if node.many else "leaf", node.config, wide)
            return
        assert isinstance(node, Container)
        found[path] = ("list" if node.keys else "container", node.config, node.keys)
        for child in node.children.values():
            walk(child, f"{path}/{child.name}")

    walk(handed_down, "")
    assert handed_down.name.endswith(f":{top.name}")
    return found


def of_yang(top: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def walk(node: Any, path: str) -> None:
        match node:
            case LeafListNode() | LeafNode():
                wide = type(node.type).__name__ in ("Uint64Type", "Int64Type")
                found[path] = ("leaf-list" if isinstance(node, LeafListNode) else "leaf", node.config, wide)
                return
            case ListNode():
                found[path] = ("list", node.config, tuple(sorted(name for name, _ in node.keys)))
            case ContainerNode():
                found[path] = ("container", node.config, ())
        assert isinstance(node, InternalNode)
        for child in node.data_children():
            walk(child, f"{path}/{child.name}")

    walk(top, "")
    return found


def test_a_statement_of_any_size_has_room() -> None:
    assert f'length "1..{MAXIMUM_BODY}"' in (PROTO / "keyhaul-ckms.yang").read_text()


def test_modules_have_the_revision_of_their_text() -> None:
    module: Module = ckms.MODULE
    assert f"revision {module.revision} " in (PROTO / f"{module.name}.yang").read_text()
