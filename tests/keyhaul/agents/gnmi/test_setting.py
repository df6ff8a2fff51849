"""Set: the specification's order, values brought to whoever writes them, all or nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pygnmi.spec.v080 import gnmi_pb2

from keyhaul.agents.gnmi import paths, setting, types
from keyhaul.agents.gnmi.errors import Code, Refused
from keyhaul.agents.gnmi.models import ckms
from keyhaul.agents.gnmi.paths import parse, to_proto
from keyhaul.agents.gnmi.schema import Module, Schema, container, leaf, list_of
from keyhaul.agents.gnmi.tree import DataTree, Edit, Operation, Undo
from tests.keyhaul.agents.gnmi.carrier import STATEMENTS, Carrier

GARDEN = Module(
    "garden",
    "tests",
    "2026-01-01",
    "urn:tests:garden",
    (
        container(
            "garden",
            leaf("season", types.STRING, config=False),
            container("gate", leaf("open", types.BOOLEAN), leaf("colour", types.STRING)),
            container("bed", list_of("plant", ["name"], leaf("name", types.STRING), leaf("height", types.UINT32))),
            container("wall", leaf("stones", types.UINT64)),
        ),
    ),
)
TOP = "/garden:garden"


class Plot:
    """Writes one subtree into a list of what was done; may refuse."""

    def __init__(self, log: list[str], name: str, *, refuses: bool = False) -> None:
        self.log, self.name, self.refuses = log, name, refuses
        self.edits: list[Edit] = []

    async def write(self, edits: Sequence[Edit]) -> Undo:
        if self.refuses:
            raise Refused(Code.FAILED_PRECONDITION, f"{self.name} is frozen")
        self.edits.extend(edits)
        self.log.append(f"write {self.name}")

        async def undo() -> None:
            self.log.append(f"undo {self.name}")

        return undo


def garden(*refusing: str) -> tuple[DataTree, dict[str, Plot], list[str]]:
    log: list[str] = []
    plots = {name: Plot(log, name, refuses=name in refusing) for name in ("gate", "plant")}
    tree = DataTree(
        Schema([GARDEN]), {TOP: lambda: None}, {f"{TOP}/gate": plots["gate"], f"{TOP}/bed/plant": plots["plant"]}
    )
    return tree, plots, log


def value(what: Any) -> Any:
    return gnmi_pb2.TypedValue(json_ietf_val=json.dumps(what).encode())


def request(
    delete: Sequence[str] = (), replace: Sequence[tuple[str, Any]] = (), update: Sequence[tuple[str, Any]] = ()
) -> Any:
    return gnmi_pb2.SetRequest(
        delete=[to_proto(parse(path)) for path in delete],
        replace=[gnmi_pb2.Update(path=to_proto(parse(path)), val=value(what)) for path, what in replace],
        update=[gnmi_pb2.Update(path=to_proto(parse(path)), val=value(what)) for path, what in update],
    )


def edits(asked: Any) -> dict[str, list[tuple[str, str, Any]]]:
    tree, _, _ = garden()
    planned = setting.plan(tree.schema, tree.writers, asked)
    return {
        names[-1]: [(edit.operation.value, paths.text(edit.path), edit.value) for edit in found]
        for names, found in planned.edits.items()
    }


def refusal(asked: Any) -> Code:
    with pytest.raises(Refused) as caught:
        edits(asked)
    return caught.value.code


def test_deletes_come_before_replaces_and_those_before_updates() -> None:
    asked = request(
        update=[(f"{TOP}/bed/plant[name=rose]", {"height": 3})],
        replace=[(f"{TOP}/bed/plant[name=oak]", {"height": 900})],
        delete=[f"{TOP}/bed/plant[name=ivy]"],
    )
    assert edits(asked) == {
        "plant": [
            ("delete", f"{TOP}/bed/plant[name=ivy]", None),
            ("replace", f"{TOP}/bed/plant[name=oak]", {"name": "oak", "height": 900}),
            ("update", f"{TOP}/bed/plant[name=rose]", {"name": "rose", "height": 3}),
        ]
    }
    tree, _, _ = garden()
    answered = setting.plan(tree.schema, tree.writers, asked).response.response
    assert [gnmi_pb2.UpdateResult.Operation.Name(each.op) for each in answered] == ["DELETE", "REPLACE", "UPDATE"]


def test_leaves_of_one_entry_come_together() -> None:
    asked = request(
        update=[
            (f"{TOP}/bed/plant[name=rose]/height", 3),
            (f"{TOP}/gate/open", True),
            (f"{TOP}/bed/plant[name=rose]/height", 4),
            (f"{TOP}/gate/colour", "red"),
        ]
    )
    assert edits(asked) == {
        "plant": [("update", f"{TOP}/bed/plant[name=rose]", {"name": "rose", "height": 4})],
        "gate": [("update", f"{TOP}/gate", {"open": True, "colour": "red"})],
    }


def test_a_value_from_above_is_divided_among_the_writers() -> None:
    whole = {"gate": {"open": False}, "bed": {"plant": [{"name": "oak"}, {"name": "ivy", "height": 1}]}}
    divided = {
        "gate": [("update", f"{TOP}/gate", {"open": False})],
        "plant": [
            ("update", f"{TOP}/bed/plant[name=oak]", {"name": "oak"}),
            ("update", f"{TOP}/bed/plant[name=ivy]", {"name": "ivy", "height": 1}),
        ],
    }
    assert edits(request(update=[(TOP, whole)])) == divided
    assert edits(request(update=[("/", {"garden:garden": whole})])) == divided


def test_replacing_from_above_removes_what_is_not_said() -> None:
    assert edits(request(replace=[(TOP, {"bed": {"plant": [{"name": "oak"}]}})])) == {
        "gate": [("replace", f"{TOP}/gate", {})],
        "plant": [
            ("delete", f"{TOP}/bed/plant", None),
            ("replace", f"{TOP}/bed/plant[name=oak]", {"name": "oak"}),
        ],
    }


def test_deleting_from_above_reaches_every_writer() -> None:
    assert edits(request(delete=[TOP])) == {
        "gate": [("delete", f"{TOP}/gate", None)],
        "plant": [("delete", f"{TOP}/bed/plant", None)],
    }


def test_an_empty_set_is_fine() -> None:
    assert edits(request()) == {}


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (request(update=[(f"{TOP}/season", "autumn")]), Code.INVALID_ARGUMENT),
        (request(update=[(TOP, {"season": "autumn"})]), Code.INVALID_ARGUMENT),
        (request(delete=[f"{TOP}/season"]), Code.INVALID_ARGUMENT),
        (request(update=[(f"{TOP}/wall", {"stones": "3"})]), Code.PERMISSION_DENIED),
        (request(update=[(TOP, {"wall": {"stones": "3"}})]), Code.PERMISSION_DENIED),
        (request(update=[(f"{TOP}/bed/plant", [])]), Code.INVALID_ARGUMENT),
        (request(update=[(f"{TOP}/bed/plant[name=*]", {})]), Code.INVALID_ARGUMENT),
        (request(update=[(f"{TOP}/bed/plant[name=oak]", {"name": "ivy"})]), Code.INVALID_ARGUMENT),
        (request(update=[(f"{TOP}/bed/plant[name=oak]/height", "3")]), Code.INVALID_ARGUMENT),
        (request(update=[(f"{TOP}/bed/plant[name=oak]/name", "ivy")]), Code.INVALID_ARGUMENT),
        (request(update=[(f"{TOP}/pond", {})]), Code.UNIMPLEMENTED),
        (request(delete=[f"{TOP}/*"]), Code.INVALID_ARGUMENT),
        (request(delete=[f"{TOP}/gate/open"] * 1025), Code.RESOURCE_EXHAUSTED),
    ],
)
def test_what_cannot_be_set(asked: Any, code: Code) -> None:
    assert refusal(asked) is code


async def test_a_failure_takes_back_what_was_done() -> None:
    tree, plots, log = garden("plant")
    both = request(update=[(f"{TOP}/gate/open", True), (f"{TOP}/bed/plant[name=oak]/height", 1)])
    with pytest.raises(Refused, match="plant is frozen"):
        await setting.carry_out(setting.plan(tree.schema, tree.writers, both), tree.writers)
    assert log == ["write gate", "undo gate"]
    plots["plant"].refuses = False
    await setting.carry_out(setting.plan(tree.schema, tree.writers, both), tree.writers)
    assert log[2:] == ["write gate", "write plant"]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6, unique=True), st.integers(0, 6))
async def test_all_statements_of_a_set_or_none(serials: list[int], bad: int) -> None:
    carrier = Carrier()
    carrier.book.held = {99: {"serial": 99, "body": b"{}", "signature": b""}}
    before = dict(carrier.book.held)
    asked = request(
        update=[
            (f"{STATEMENTS}[serial={serial}]", {"body": "YmFk" if serial == bad else "e30=", "signature": ""})
            for serial in serials
        ]
    )
    planned = setting.plan(carrier.tree.schema, carrier.tree.writers, asked)
    if bad in serials:
        with pytest.raises(Refused):
            await setting.carry_out(planned, carrier.tree.writers)
        assert carrier.book.held == before
    else:
        await setting.carry_out(planned, carrier.tree.writers)
        assert carrier.book.held.keys() == {99, *serials}


def test_writers_stand_at_containers_and_lists_of_configuration() -> None:
    schema = Schema([ckms.MODULE])
    for wrong in (f"/{ckms.TOP}/links", f"/{ckms.TOP}/version", f"{STATEMENTS}/body", "/nothing"):
        with pytest.raises(ValueError):
            DataTree(schema, {}, {wrong: Plot([], "x")})
    with pytest.raises(ValueError):
        DataTree(schema, {STATEMENTS: lambda: None})
    with pytest.raises(ValueError, match="above"):
        DataTree(schema, {}, {STATEMENTS: Plot([], "x"), f"/{ckms.TOP}/forwarding": Plot([], "y")})


def test_operations_are_named() -> None:
    assert [operation.value for operation in Operation] == ["delete", "replace", "update"]
