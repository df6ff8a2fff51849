"""What became of batches, as their makers ask: the answer of an asker that may have lost its records."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from keyhaul.keys.states import KeyState
from keyhaul.store.interface import Store
from keyhaul.transport.interface import Calls, Peer
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import BatchState, Query, QueryReply
from services.akms import batches
from services.akms.batches import Batch
from services.akms.requesting import Requesting
from services.akms.searching import Searching

MAXIMUM_QUERIED = 1024


class Querying:
    """The answers of one AKMS, as asker."""

    def __init__(self, store: Store, peers: Mapping[str, Calls], requesting: Requesting, searching: Searching) -> None:
        self._store = store
        self._peers = peers
        self._requesting = requesting
        self._searching = searching

    async def query(self, peer: Peer, message: Query) -> QueryReply:
        """peer.query: what this asker knows of a maker's batches; those of other makers are unknown to it.

        Its UKMSs are asked for what an earlier process may have released without its record having lasted. `PREPARED`
        is the answer too where that cannot be told yet.
        """
        if len(message.batches) > MAXIMUM_QUERIED or len(message.requests) not in (0, len(message.batches)):
            raise ServiceError(ErrorCode.MALFORMED, "too many batches, or not a request for each")
        requests = message.requests or [""] * len(message.batches)
        maker = peer.name.id
        taking = {name for name in message.batches if self._requesting.taking(name)}
        before = await self._store.read(partial(batches.find_all, names=message.batches))
        doubtful = [
            name
            for name, batch, request in zip(message.batches, before, requests, strict=True)
            if maker in self._peers
            and batches.NAME.fullmatch(name)
            and name not in taking
            and not self._requesting.asked(request)
            and (batch is None or (batch.is_made_by(maker) and batch.state is KeyState.PREPARED))
        ]
        found = await self._searching.find(doubtful, maker) if doubtful else {}
        known = await self._store.read(partial(batches.find_all, names=message.batches)) if doubtful else before

        def state(name: str, batch: Batch | None) -> BatchState:
            if name in found and found[name].masters:
                return BatchState.RELEASED
            if batch is not None:
                return batch.for_peers if batch.is_made_by(maker) else BatchState.UNKNOWN
            undecided = name in taking or (name in found and not found[name].sure)
            return BatchState.PREPARED if undecided else BatchState.UNKNOWN

        return QueryReply(states=[state(*one) for one in zip(message.batches, known, strict=True)])
