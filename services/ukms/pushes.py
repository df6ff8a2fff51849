"""Pushes of the AKMS as they come in: checked whole, and cut into keys. Sans-IO."""

from __future__ import annotations

from keyhaul.identity.names import MalformedName, sae_id
from keyhaul.keys.material import KeyId, KeyMaterial
from keyhaul.transport.messages.access import Push
from keyhaul.transport.messages.base import ErrorCode, ServiceError

MAXIMUM_LIFETIME = 30 * 86_400.0
"""Seconds."""

MAXIMUM_SIZE = 65_536
"""Bits of a key."""

MAXIMUM_PUSHED = 1_024
"""Keys in one push."""


def material_of(push: Push, secret: bytes) -> dict[KeyId, KeyMaterial]:
    """Check a push and cut its secret into keys.

    Raises:
        ServiceError: malformed.
    """
    try:
        for name in (push.master, *push.slaves, *push.held_for):
            sae_id(name)
    except MalformedName:
        raise ServiceError(ErrorCode.MALFORMED, "an SAE ID in the push is malformed") from None
    length, odd = divmod(push.size, 8)
    sound = (
        1 <= len(push.batch) <= 64
        and push.batch.isascii()
        and 1 <= len(push.key_ids) <= MAXIMUM_PUSHED
        and len(set(push.key_ids)) == len(push.key_ids)
        and len(set(push.slaves)) == len(push.slaves) >= 1
        and len(set(push.held_for)) == len(push.held_for)
        and set(push.held_for) <= set(push.slaves)
        and (push.for_master or push.held_for)
        and 0 < push.lifetime_ms <= 1000 * MAXIMUM_LIFETIME
        and (push.slave_lifetime_ms == 0 or push.lifetime_ms <= push.slave_lifetime_ms <= 1000 * MAXIMUM_LIFETIME)
        and len(push.service_class) <= 32
        and 0 < push.size <= MAXIMUM_SIZE
        and not odd
    )
    if not sound:
        raise ServiceError(ErrorCode.MALFORMED, "the push contradicts itself or exceeds a limit")
    if len(secret) != length * len(push.key_ids):
        raise ServiceError(ErrorCode.MALFORMED, "the push's secret is not as long as its keys")
    return {
        key_id: KeyMaterial(secret[length * index : length * (index + 1)]) for index, key_id in enumerate(push.key_ids)
    }
