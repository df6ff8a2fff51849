"""The AKMS as a UKMS sees it: what is asked of it, and what it pushes, both sealed under the access link's keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

import structlog

from keyhaul.identity.names import MalformedName, SaeId, ServiceName, sae_id
from keyhaul.keys.material import KeyId
from keyhaul.link.interface import LinkCalls, SealedHandler
from keyhaul.store.interface import StoreError
from keyhaul.transport.messages.access import (
    DeliveryFailed,
    Describe,
    Description,
    Held,
    Push,
    Report,
    Reported,
    RequestKeys,
    Revoke,
    Revoked,
    Settle,
    States,
)
from keyhaul.transport.messages.base import Accepted, ErrorCode, Message, ServiceError
from keyhaul.transport.messages.peer import Query, Voided, VoidKeys, Withdraw
from keyhaul.transport.operations import (
    ACCESS_DESCRIBE,
    ACCESS_REPORT,
    ACCESS_REQUEST,
    ACCESS_WITHDRAW,
    DELIVERY_FAILED,
    DELIVERY_PUSH,
    DELIVERY_QUERY,
    DELIVERY_REVOKE,
    DELIVERY_SETTLE,
    DELIVERY_VOID,
)
from services.ukms.standing import Standing
from services.ukms.supply import Supply
from services.ukms.terms import Terms
from services.ukms.vault import Vault

log = structlog.get_logger(__name__)

CALL_DEADLINE = 5.0
"""Seconds for the AKMS to answer."""

MAXIMUM_NAMES = 4_096
"""Batches that one query or settlement may name."""

MAXIMUM_VOIDED = 1_024
"""Keys that one void may name."""

Asked = TypeVar("Asked", bound=Message)
Answered = TypeVar("Answered", bound=Message)


class Akms:
    """Calls to the AKMS. All of them raise ServiceError."""

    def __init__(self, link: LinkCalls, standing: Standing) -> None:
        self._link = link
        self._standing = standing

    async def request(self, message: RequestKeys, deadline: float) -> None:
        """Ask for keys; they come as a push."""
        message.generation = self._standing.generation
        await self._link.call(ACCESS_REQUEST, message, deadline=deadline)
        self._standing.told(message.generation)

    async def describe(self, message: Describe, deadline: float) -> Description:
        """Ask for the terms of a contract."""
        description, _ = await self._link.call(ACCESS_DESCRIBE, message, deadline=deadline)
        return description

    async def withdraw(self, batch: str, key_ids: Collection[KeyId], deadline: float) -> None:
        """Tell that these master copies were durably given up unissued."""
        await self._link.call(ACCESS_WITHDRAW, Withdraw(batch=batch, key_ids=list(key_ids)), deadline=deadline)

    async def known(self) -> Reported:
        """Ask what the AKMS knows of the store."""
        inquiry = Report(store=self._standing.store, unsettled=[], inquiry=True)
        known, _ = await self._link.call(ACCESS_REPORT, inquiry, deadline=CALL_DEADLINE)
        return known

    async def report(self, unsettled: list[str], deadline: float) -> None:
        """Tell identity and generation of the store, and what is held unsettled."""
        report = Report(store=self._standing.store, unsettled=unsettled, generation=self._standing.generation)
        await self._link.call(ACCESS_REPORT, report, deadline=deadline)
        self._standing.told(report.generation)


class Deliveries:
    """Serves what the AKMS calls. Everything here may be repeated."""

    def __init__(self, supply: Supply, terms: Terms, vault: Vault, standing: Standing) -> None:
        self._supply = supply
        self._terms = terms
        self._vault = vault
        self._standing = standing

    def serve(self, link: LinkCalls) -> None:
        """Register with the link."""
        link.serve(DELIVERY_PUSH, self.push)
        link.serve(DELIVERY_FAILED, _plain(self.failed))
        link.serve(DELIVERY_VOID, _plain(self.void))
        link.serve(DELIVERY_QUERY, _plain(self.query))
        link.serve(DELIVERY_SETTLE, _plain(self.settle))
        link.serve(DELIVERY_REVOKE, _plain(self.revoke))

    async def push(self, _akms: ServiceName, message: Push, secret: bytes) -> tuple[Held, bytes]:
        """Keys: durable before this returns. The master's are taken only if this UKMS asked for them."""
        self._standing.admit_akms()
        held = await self._supply.push(message, secret)
        held.generation = self._standing.generation
        self._standing.told(held.generation)
        return held, b""

    async def failed(self, message: DeliveryFailed) -> Accepted:
        """A request will not be served."""
        await self._supply.failed(message)
        return Accepted()

    async def void(self, message: VoidKeys) -> Voided:
        """Withdraw what has not been issued, and tell what has."""
        if not 1 <= len(message.batch) <= 64 or len(message.key_ids) > MAXIMUM_VOIDED:
            raise ServiceError(ErrorCode.MALFORMED, "the batch's name or the list of keys is too long")
        self._standing.admit_akms()
        answer = await self._supply.void(message)
        answer.generation = self._standing.generation
        self._standing.told(answer.generation)
        return answer

    async def query(self, message: Query) -> States:
        """Tell the state of batches."""
        _check_names(message.batches)
        self._standing.admit_akms()
        return States(states=await self._vault.states(message.batches))

    async def settle(self, message: Settle) -> Accepted:
        """Nothing is left to reconcile about these batches."""
        _check_names(message.batches)
        await self._vault.settle(message.batches)
        return Accepted()

    async def revoke(self, message: Revoke) -> Revoked:
        """Stop issuing; what was under way is committed or refused before this returns."""
        try:
            master = sae_id(message.master)
            slaves = frozenset[SaeId](sae_id(slave) for slave in message.slaves)
        except MalformedName:
            raise ServiceError(ErrorCode.MALFORMED, "an SAE ID in the revocation is malformed") from None
        self._supply.revoked(master, slaves)
        await self._terms.revoke(master, slaves)
        return Revoked()


def _check_names(batches: list[str]) -> None:
    if len(batches) > MAXIMUM_NAMES:
        raise ServiceError(ErrorCode.MALFORMED, f"more than {MAXIMUM_NAMES} batches are named")


def _plain(answer: Callable[[Asked], Awaitable[Answered]]) -> SealedHandler[Asked, Answered]:
    """A handler of messages that carry no secret."""

    async def handler(_akms: ServiceName, message: Asked, secret: bytes) -> tuple[Answered, bytes]:
        if secret:
            raise ServiceError(ErrorCode.MALFORMED, "this message carries no secret")
        try:
            return await answer(message), b""
        except StoreError as error:
            log.error("the store failed", error=str(error))
            raise ServiceError(ErrorCode.BUSY) from None

    return handler
