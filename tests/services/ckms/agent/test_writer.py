"""What becomes of a controller's Set at a CKMS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from keyhaul.agents.gnmi.errors import Code, Refused
from keyhaul.agents.gnmi.paths import parse
from keyhaul.agents.gnmi.tree import Edit, Operation
from keyhaul.agents.signing import SignedStatement
from keyhaul.agents.statements import StatementRefusal, StatementRefused
from keyhaul.store.interface import StoreUnavailable
from services.ckms.agent.writer import StatementWriter


class Steering:
    """Takes what it is given, or says why not."""

    def __init__(self) -> None:
        self.taken: list[dict[int, SignedStatement]] = []
        self.failure: Exception | None = None

    async def accept(self, offered: Mapping[int, SignedStatement]) -> None:
        if self.failure is not None:
            raise self.failure
        self.taken.append(dict(offered))


def edit(serial: int, operation: Operation = Operation.UPDATE, **members: Any) -> Edit:
    path = parse(f"/keyhaul-ckms:carrier/forwarding/statement[serial={serial}]")
    return Edit(operation, path, {"serial": serial, "body": b"{}", "signature": b"s"} | members)


async def test_all_of_a_set_is_offered_together() -> None:
    steering = Steering()
    await StatementWriter(steering).write([edit(7), edit(8, body=b"other")])
    assert steering.taken == [{7: SignedStatement(b"{}", b"s"), 8: SignedStatement(b"other", b"s")}]


@pytest.mark.parametrize("operation", [Operation.DELETE, Operation.REPLACE])
async def test_statements_are_neither_deleted_nor_replaced(operation: Operation) -> None:
    steering = Steering()
    with pytest.raises(Refused) as refused:
        await StatementWriter(steering).write([edit(7), edit(8, operation)])
    assert (refused.value.code, steering.taken) == (Code.PERMISSION_DENIED, [])


async def test_half_a_statement_is_none() -> None:
    steering = Steering()
    whole = edit(7)
    half = Edit(Operation.UPDATE, whole.path, {"serial": 7, "body": b"{}"})
    with pytest.raises(Refused) as refused:
        await StatementWriter(steering).write([half])
    assert (refused.value.code, steering.taken) == (Code.INVALID_ARGUMENT, [])


@pytest.mark.parametrize("refusal", list(StatementRefusal))
async def test_the_controller_is_told_the_reason_in_a_word(refusal: StatementRefusal) -> None:
    steering = Steering()
    steering.failure = StatementRefused(refusal, "so it is", serial=7)
    with pytest.raises(Refused) as refused:
        await StatementWriter(steering).write([edit(7)])
    assert refused.value.message == f"{refusal.value}: statement 7: so it is"
    assert refused.value.code not in (Code.UNAVAILABLE, Code.INTERNAL)


async def test_after_a_failure_of_the_store_nobody_knows() -> None:
    steering = Steering()
    steering.failure = StoreUnavailable("the disk is full")
    with pytest.raises(Refused) as refused:
        await StatementWriter(steering).write([edit(7)])
    assert refused.value.code is Code.UNAVAILABLE
