"""Brings statements to CKMSs, and reads back what holds there: the core's `Tell` and `Read` over gNMI.

A statement is recorded before it is sent (`Signed.rows`), so that whatever becomes of this process, the next leader
knows what may be in force where.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from controller.reported import qualified
from controller.state.installed import Statement as Row
from controller.steering.effects import InForce, Tell
from keyhaul.agents.gnmi.failures import Late, RefusedByTarget, TargetError
from keyhaul.agents.gnmi.models.ckms import TOP
from keyhaul.agents.gnmi.notices import Update
from keyhaul.agents.signing import SignedStatement, sign
from keyhaul.agents.statements import (
    STATEMENT_VERSION,
    Statement,
    StatementRefusal,
    StatementRefused,
    Withdrawal,
)
from keyhaul.transport.tls_policy import TlsUnusable

SET_DEADLINE = 3.0
"""Seconds for a CKMS to verify, keep and confirm statements."""

READ_DEADLINE = 5.0
"""Seconds for a CKMS to tell what holds."""

GUARD = 5.0
"""Seconds after a deadline in which gRPC must have said so; an answer that came in time may be seen as late as that."""

_FORWARDING = f"/{TOP}/forwarding"
_READ = (
    f"/{TOP}/incarnation",
    f"{_FORWARDING}/epoch",
    f"{_FORWARDING}/serial",
    f"{_FORWARDING}/entry[previous=*][label=*]",
    f"{_FORWARDING}/path[destination=*][service-class=*][rank=*][origin=statement]",
)


class Node(Protocol):
    """A way to one CKMS (`keyhaul.agents.gnmi.client.Client`)."""

    async def get(self, places: Iterable[str], *, deadline: float, kind: str = "ALL") -> list[tuple[Update, ...]]:
        """What is at some paths."""
        ...

    async def set(
        self,
        *,
        deadline: float,
        delete: Sequence[str] = (),
        replace: Mapping[str, Any] | None = None,
        update: Mapping[str, Any] | None = None,
    ) -> int:
        """Change all of it or nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Signed:
    """The statements of one `Tell`, signed."""

    tell: Tell
    epoch: int
    statements: Mapping[int, SignedStatement]
    """By serial, in the order in which they are said."""

    @property
    def serials(self) -> tuple[int, ...]:
        """In the order in which they are said."""
        return tuple(self.statements)

    @property
    def rows(self) -> Iterator[Row]:
        """What is to be recorded before they are sent."""
        for say, (serial, signed) in zip(self.tell.says, self.statements.items(), strict=True):
            if not isinstance(say.says, Withdrawal):
                node = self.tell.node
                yield Row(serial, self.epoch, node, say.demand, say.rank, signed.body, signed.signature)


def sign_tell(tell: Tell, epoch: int, serials: Sequence[int], key: MLDSA65PrivateKey) -> Signed:
    """Sign what is to be told, with these serials in its order. About 0.4 ms: to be run in a thread.

    Raises:
        StatementRefused: some of it no node would accept.
    """
    statements = [
        Statement(
            v=STATEMENT_VERSION,
            node=tell.node,
            incarnation=tell.incarnation or None,
            epoch=epoch,
            serial=serial,
            lifetime_s=say.lifetime_s,
            says=say.says,
        )
        for serial, say in zip(serials, tell.says, strict=True)
    ]
    return Signed(tell, epoch, dict(zip(serials, sign(statements, key), strict=True)))


def sign_all(
    parts: Iterable[tuple[Tell, Sequence[int]]], epoch: int, key: MLDSA65PrivateKey
) -> list[Signed | StatementRefused]:
    """Each `Tell` signed with its serials, or why no node would accept it."""
    signed: list[Signed | StatementRefused] = []
    for tell, serials in parts:
        try:
            signed.append(sign_tell(tell, epoch, serials, key))
        except StatementRefused as refused:
            signed.append(refused)
    return signed


class Result(StrEnum):
    """What became of a `Tell`."""

    CONFIRMED = "confirmed"
    """All of it is in force and durable at the node."""
    REFUSED = "refused"
    """The node took nothing of it."""
    UNKNOWN = "unknown"
    """No answer: it may be in force, or come to be."""
    NOT_SENT = "not-sent"
    """The node could not be reached."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a `Tell`, and why."""

    result: Result
    why: str = ""
    refusal: StatementRefusal | None = None
    """Of one that was refused, where the node said it."""


async def send(node: Node | None, signed: Signed, *, deadline: float = SET_DEADLINE) -> Outcome:
    """Bring statements to their node in one Set."""
    if node is None:
        return Outcome(Result.NOT_SENT, f"{signed.tell.node}: not planned")
    update = {
        f"{_FORWARDING}/statement[serial={serial}]": {
            "serial": str(serial),
            "body": base64.b64encode(one.body).decode(),
            "signature": base64.b64encode(one.signature).decode(),
        }
        for serial, one in signed.statements.items()
    }
    try:
        async with asyncio.timeout(deadline + GUARD):
            await node.set(deadline=deadline, update=update)
    except RefusedByTarget as error:
        return Outcome(Result.REFUSED, str(error), _refusal(error))
    except TlsUnusable as error:
        return Outcome(Result.NOT_SENT, str(error))
    except TimeoutError:
        return Outcome(Result.UNKNOWN, f"{signed.tell.node}: no answer in time")
    except TargetError as error:
        return Outcome(Result.UNKNOWN, str(error))
    return Outcome(Result.CONFIRMED)


def _refusal(error: RefusedByTarget) -> StatementRefusal | None:
    """The reason with which a CKMS begins its message, after its name."""
    reason = str(error).split(": ", 2)[1:2]
    return next((refusal for refusal in StatementRefusal if [refusal.value] == reason), None)


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What a node has."""

    incarnation: str
    epoch: int
    serial: int
    """The highest that it accepted in that epoch."""
    statements: tuple[InForce, ...]


class _Row(msgspec.Struct, rename=qualified):
    serial: int | None = None
    remaining: float = 0


_ROW = msgspec.json.Decoder(_Row, strict=False)
_NUMBER = msgspec.json.Decoder(int, strict=False)
_TEXT = msgspec.json.Decoder(str)


async def read(node: Node, *, deadline: float = READ_DEADLINE) -> ReadBack:
    """Read what holds at a node.

    Raises:
        TargetError: it could not be asked, or its answer makes no sense.
    """
    try:
        async with asyncio.timeout(deadline + GUARD):
            incarnation, epoch, serial, entries, paths = await node.get(_READ, deadline=deadline)
        rows = [_ROW.decode(update.value) for update in (*entries, *paths)]
        return ReadBack(
            _TEXT.decode(incarnation[0].value),
            _NUMBER.decode(epoch[0].value),
            _NUMBER.decode(serial[0].value),
            tuple(InForce(row.serial, row.remaining) for row in rows if row.serial is not None),
        )
    except TimeoutError:
        raise Late("no answer in time") from None
    except (msgspec.DecodeError, IndexError, ValueError, OverflowError):
        raise RefusedByTarget("its answer to a Get makes no sense", None) from None
    except TlsUnusable as error:
        raise TargetError(str(error)) from None
