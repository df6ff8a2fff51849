"""What a controller says by gNMI Set: statements, given to the steering; all of one Set take effect, or none.

The message of a refusal begins with the reason, a word of `keyhaul.agents.statements.StatementRefusal`, by which the
controller knows what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from keyhaul.agents.gnmi.errors import Code, Refused, malformed
from keyhaul.agents.gnmi.tree import Edit, Operation, Undo
from keyhaul.agents.signing import SignedStatement
from keyhaul.agents.statements import StatementRefusal, StatementRefused
from keyhaul.store.interface import StoreUnavailable

_CODES = {
    StatementRefusal.MALFORMED: Code.INVALID_ARGUMENT,
    StatementRefusal.UNKNOWN: Code.UNIMPLEMENTED,
    StatementRefusal.FORGED: Code.PERMISSION_DENIED,
    StatementRefusal.OTHER_NODE: Code.INVALID_ARGUMENT,
    StatementRefusal.OLD_EPOCH: Code.FAILED_PRECONDITION,
    StatementRefusal.REPLAYED: Code.FAILED_PRECONDITION,
    StatementRefusal.NOT_FRESH: Code.FAILED_PRECONDITION,
    StatementRefusal.UNFIT: Code.FAILED_PRECONDITION,
    StatementRefusal.TOO_MANY: Code.RESOURCE_EXHAUSTED,
}


class Accepting(Protocol):
    """What takes statements (`services.ckms.steering.Steering`)."""

    async def accept(self, offered: Mapping[int, SignedStatement]) -> None:
        """See `Steering.accept`."""
        ...


class StatementWriter:
    """The writer of `carrier/forwarding/statement`."""

    def __init__(self, steering: Accepting) -> None:
        self._steering = steering

    async def write(self, edits: Sequence[Edit]) -> Undo:
        """See `keyhaul.agents.gnmi.tree.Writer`."""
        offered = dict(map(_offered, edits))
        try:
            await self._steering.accept(offered)
        except StatementRefused as refused:
            raise Refused(_CODES[refused.refusal], f"{refused.refusal.value}: {refused}") from None
        except StoreUnavailable:
            raise Refused(Code.UNAVAILABLE, "the store failed: what it came to is not known") from None
        return _is_never_undone


def _offered(edit: Edit) -> tuple[int, SignedStatement]:
    if edit.operation is not Operation.UPDATE:
        raise Refused(Code.PERMISSION_DENIED, "statements are added by update, and withdrawn by statements")
    entry: Mapping[str, Any] = edit.value
    if "body" not in entry or "signature" not in entry:
        raise malformed(f"statement {entry['serial']}: a statement has a body and a signature")
    return entry["serial"], SignedStatement(entry["body"], entry["signature"])


async def _is_never_undone() -> None:
    raise AssertionError("this is the tree's only writer: nothing else of a Set can fail after it")
