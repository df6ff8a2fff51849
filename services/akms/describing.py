"""The terms of a contract, as far as a user may know them."""

from __future__ import annotations

from keyhaul.identity.names import ServiceName
from keyhaul.transport.messages.access import Describe, Description
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from services.akms.grants import Grants
from services.akms.permission import MAXIMUM_SLAVES, Refused, check_names, maker_of

VALID_MS = 60_000
MAXIMUM_STORED_KEYS = 100_000


class Describing:
    """Answers what a master may have; unknown and forbidden slaves look alike, as AAA's refusal says nothing more."""

    def __init__(self, own: ServiceName, grants: Grants) -> None:
        self._own = own
        self._grants = grants

    async def describe(self, neighbour: ServiceName, message: Describe) -> Description:
        """access.describe: the terms between a master and its slaves.

        Raises:
            ServiceError: not-permitted, with one text for every reason; or AAA cannot be asked.
        """
        try:
            check_names(message.master, message.slaves)
            held = await self._grants.obtain(neighbour.id, message.master, message.slaves)
            maker_of(held.grant.slaves, self._own.id)
        except Refused:
            raise ServiceError(ErrorCode.NOT_PERMITTED, "not permitted") from None
        grant = held.grant
        return Description(
            target_kme=grant.target_kme,
            service_class=grant.service_class,
            default_size=grant.default_size,
            minimum_size=grant.minimum_size,
            maximum_size=grant.maximum_size,
            maximum_keys_per_request=grant.maximum_keys_per_request,
            maximum_additional_slaves=MAXIMUM_SLAVES - 1,
            maximum_stored_keys=min(MAXIMUM_STORED_KEYS, max(1, grant.allowance)),
            loopback=grant.loopback,
            valid_ms=VALID_MS,
        )
