"""The KME that SAEs see: the three methods of ETSI GS QKD 014, for a caller whose identity is verified.

A key that was taken out for an answer which never reached the SAE is gone: it is never handed out again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from keyhaul.identity.names import KmeId, SaeId
from keyhaul.keys.etsi014 import Key, KeyContainer, KeyRequest, Status
from keyhaul.keys.material import KeyId
from services.ukms.buffer import BufferKey
from services.ukms.copies import NotFound, NotNamed
from services.ukms.etsi014 import keys_not_found, not_named, slave_refused
from services.ukms.metrics import Metrics
from services.ukms.standing import Standing
from services.ukms.supply import Supply
from services.ukms.terms import Terms
from services.ukms.vault import Keys, Vault
from services.ukms.wanted import named_sae, wanted_keys, within_terms


class Kme:
    """One UKMS as its SAEs see it."""

    def __init__(
        self,
        name: KmeId,
        terms: Terms,
        supply: Supply,
        vault: Vault,
        metrics: Metrics,
        standing: Standing,
        *,
        patience: float,
        clock: Callable[[], float],
    ) -> None:
        """Prepare.

        Args:
            name: the KME ID.
            terms: contracts.
            supply: keys for masters.
            vault: keys for slaves.
            metrics: what is counted.
            standing: whether keys may be handed out.
            patience: seconds that a request may wait for keys.
            clock: seconds of this node's clock.
        """
        self._name = name
        self._terms = terms
        self._supply = supply
        self._vault = vault
        self._metrics = metrics
        self._standing = standing
        self._patience = patience
        self._clock = clock

    async def status(self, caller: SaeId, slave: str) -> Status:
        """Get status.

        Raises:
            Refusal: 400 or 503.
            StoreError: the store failed.
        """
        name = named_sae(slave)
        terms = await self._terms.get(caller, (name,), self._clock() + self._patience)
        if name == caller and not terms.loopback:
            raise slave_refused()
        key = BufferKey(caller, frozenset((name,)), terms.default_size, terms.service_class)
        buffer = self._supply.buffers.find(key)
        return Status(
            source_KME_ID=self._name,
            target_KME_ID=terms.target_kme,
            master_SAE_ID=caller,
            slave_SAE_ID=name,
            key_size=terms.default_size,
            stored_key_count=0 if buffer is None else min(buffer.stored, terms.maximum_stored_keys),
            max_key_count=terms.maximum_stored_keys,
            max_key_per_request=terms.maximum_keys_per_request,
            max_key_size=terms.maximum_size,
            min_key_size=terms.minimum_size,
            max_SAE_ID_count=terms.maximum_additional_slaves,
        )

    async def enc_keys(self, caller: SaeId, slave: str, request: KeyRequest, program: str = "") -> KeyContainer:
        """Get key: keys that leave this KME's pool with this answer.

        `program`: which of the caller's programs asks; what is kept for one that is told to come back is its own.

        Raises:
            Refusal: 400 or 503.
            StoreError: the store failed; keys that were taken out count as burned.
        """
        wanted = wanted_keys(slave, request)
        await self._standing.admit()
        deadline = self._clock() + self._patience
        terms = await self._terms.get(caller, wanted.slaves, deadline)
        if caller in wanted.slaves and not terms.loopback:
            raise slave_refused()
        size = within_terms(wanted, terms)
        key = BufferKey(caller, frozenset(wanted.slaves), size, terms.service_class)
        keys = await self._supply.keys(key, wanted.slaves, wanted.number, terms, deadline, program)
        self._standing.handed_out()
        self._metrics.issued.labels("master").inc(len(keys))
        return _container(keys)

    async def dec_keys(self, caller: SaeId, master: str, key_ids: Sequence[KeyId]) -> KeyContainer:
        """Get key with key IDs: the caller's copies of keys that `master` got, all or none.

        Raises:
            Refusal: 401 if the caller was not named for one of them, 400 if one is not found, 503.
            StoreError: the store failed; keys that were taken out count as burned.
        """
        await self._standing.admit()
        try:
            keys = await self._vault.fetch(caller, SaeId(master), key_ids)
        except NotNamed:
            raise not_named() from None
        except NotFound:
            raise keys_not_found() from None
        self._standing.handed_out()
        self._metrics.issued.labels("slave").inc(len(keys))
        return _container(keys)


def _container(keys: Keys) -> KeyContainer:
    container = KeyContainer([Key(key_id, bits.reveal()) for key_id, bits in keys])
    for _, bits in keys:
        bits.wipe()
    return container
