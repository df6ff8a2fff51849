"""Whether a master may have keys with slaves, and the grant that says so."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from sqlalchemy import Connection, func, insert, select, update

from aaa import counters
from aaa.rights import Entry, denied, entries, permitted
from aaa.schema import EPOCH, grants, usage_days
from keyhaul.keys.grants import GRANT_VERSION, sign
from keyhaul.randomness import Source, identifier
from keyhaul.transport.messages.aaa import Authorise, Grant, SignedGrant
from keyhaul.transport.messages.base import ErrorCode, ServiceError
from keyhaul.transport.messages.peer import SlaveSite

MAXIMUM_SLAVES = 64

DAY = 86_400
"""Seconds."""

NOT_PERMITTED = "these keys are not permitted"
"""One text for all reasons: whether a slave is unknown or forbidden is not told."""

QUOTA_RETRY_MS = 60_000

QUOTA_SHARES = 4
"""A grant gets at most this part of what the quota leaves, so that one pair of SAEs does not keep it from others."""


_REQUEST = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class GrantPolicy:
    """What all grants have in common."""

    domain: str
    lifetime: int
    """Seconds."""
    allowance: int
    """Keys."""


def authorise(
    connection: Connection,
    akms: str,
    request: Authorise,
    policy: GrantPolicy,
    key: MLDSA65PrivateKey,
    source: Source,
    now: int,
) -> SignedGrant:
    """Issue a grant, recorded in this transaction, to the AKMS of the master's site.

    Args:
        connection: the transaction.
        akms: service id of the caller, verified.
        request: who wants keys with whom.
        policy: what all grants have in common.
        key: signs the grant.
        source: draws the grant's id.
        now: seconds since 1970 by AAA's clock.

    Raises:
        ServiceError: malformed; not permitted (unknown and forbidden alike, after the same queries); exhausted
            (nothing is left of today's quota).
    """
    slaves = request.slaves
    if request.request and not _REQUEST.fullmatch(request.request):
        raise ServiceError(ErrorCode.MALFORMED, "a request's name is 32 hexadecimal digits")
    if not 1 <= len(slaves) <= MAXIMUM_SLAVES or len(set(slaves)) != len(slaves):
        raise ServiceError(ErrorCode.MALFORMED, f"slaves are 1 to {MAXIMUM_SLAVES}, each named once")
    directory = entries(connection, [request.master, *slaves])
    allowed = permitted(connection, request.master, slaves)
    barred = denied(connection, request.master, request.master)
    master = directory.get(request.master)
    if master is not None and master.terms.loopback and not barred:
        allowed.add(request.master)
    elif master is not None:
        allowed.discard(request.master)
    at_home = master is not None and (master.place.ukms, master.place.akms) == (request.ukms, akms)
    if master is None or not at_home or not all(slave in allowed and slave in directory for slave in slaves):
        raise ServiceError(ErrorCode.NOT_PERMITTED, NOT_PERMITTED)
    _take_back(connection, akms, request)
    allowance = min(policy.allowance, _share_of_quota(connection, master, policy, now))
    if allowance <= 0:
        raise ServiceError(ErrorCode.EXHAUSTED, "the contract's quota is used up", retry_after_ms=QUOTA_RETRY_MS)
    grant = _grant(master, [directory[slave] for slave in slaves], policy, allowance, source)
    grant.epoch = counters.value(connection, EPOCH)
    connection.execute(
        insert(grants).values(
            id=grant.id,
            master=grant.master,
            slaves=slaves,
            akms=akms,
            contract=master.terms.contract,
            allowance=allowance,
            delivered=0,
            epoch=grant.epoch,
            issued_at=now,
            revoked=False,
            request=request.request or None,
            ukms=request.ukms,
        )
    )
    return sign(grant, key)


def _take_back(connection: Connection, akms: str, request: Authorise) -> None:
    """End the grant of an answer that the AKMS never got: its share of the quota is free again."""
    if request.request:
        same = (grants.c.request == request.request, grants.c.akms == akms, grants.c.master == request.master)
        connection.execute(update(grants).where(*same, grants.c.delivered == 0).values(revoked=True))


def _grant(master: Entry, slaves: list[Entry], policy: GrantPolicy, allowance: int, source: Source) -> Grant:
    terms = master.terms
    return Grant(
        v=GRANT_VERSION,
        id=identifier(source),
        domain=policy.domain,
        master=master.sae,
        master_ukms=master.place.ukms,
        master_akms=master.place.akms,
        slaves=[SlaveSite(slave.sae, slave.place.ukms, slave.place.akms) for slave in slaves],
        service_class=terms.service_class,
        loopback=terms.loopback,
        sizes=list(terms.sizes),
        default_size=terms.default_size,
        minimum_size=terms.minimum_size,
        maximum_size=terms.maximum_size,
        maximum_keys_per_request=terms.maximum_keys_per_request,
        allowance=allowance,
        lifetime_s=policy.lifetime,
        epoch=0,
        target_kme=slaves[0].place.kme,
        contract=terms.contract,
        rate=terms.rate,
        burst=terms.burst,
        weight=terms.weight,
    )


def _share_of_quota(connection: Connection, master: Entry, policy: GrantPolicy, now: int) -> int:
    """The keys that a new grant may promise: what today's deliveries and the standing promises leave, in parts."""
    if not master.quota:
        return policy.allowance
    contract = master.terms.contract
    today = usage_days.c.contract == contract, usage_days.c.day == now // DAY
    delivered = connection.execute(
        select(func.coalesce(func.sum(usage_days.c.delivered), 0)).where(*today)
    ).scalar_one()
    standing = (
        grants.c.contract == contract,
        grants.c.issued_at > now - policy.lifetime,
        grants.c.allowance > grants.c.delivered,
        ~grants.c.revoked,
    )
    promised = connection.execute(
        select(func.coalesce(func.sum(grants.c.allowance - grants.c.delivered), 0)).where(*standing)
    ).scalar_one()
    left: int = max(0, master.quota - int(delivered) - int(promised))
    return min(left, max(-(-left // QUOTA_SHARES), master.terms.maximum_keys_per_request))
