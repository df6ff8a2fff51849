"""What a grant permits: the asker's check of AAA's answer and the maker's check of a request.

Pure: signatures are verified by `keyhaul.keys.grants`; here is what must follow from the signed contents.
"""

from __future__ import annotations

from collections.abc import Sequence

from keyhaul.identity.names import MalformedName, ServiceName, sae_id
from keyhaul.transport.messages.aaa import Grant
from keyhaul.transport.messages.peer import KeyRequest, SlaveSite

EPOCHS_BACK = 25
"""How many epochs of AAA a grant may be behind what a maker knows."""

MAXIMUM_BATCH = 1024
"""Keys of one request at most."""

MAXIMUM_SLAVES = 8


class Refused(Exception):
    """A request that its grant does not cover. The text is for operators; a user never sees it."""


def check_names(master: str, slaves: Sequence[str]) -> None:
    """Check the shape of the SAE IDs of a request.

    Raises:
        Refused: one is malformed, there are none or too many, or one stands twice.
    """
    try:
        for sae in (master, *slaves):
            sae_id(sae)
    except MalformedName as error:
        raise Refused(str(error)) from None
    if not 1 <= len(slaves) <= MAXIMUM_SLAVES or len(set(slaves)) != len(slaves):
        raise Refused(f"a request names 1 to {MAXIMUM_SLAVES} different slaves")


def check_amount(grant: Grant, number: int, size: int) -> None:
    """Check number of keys and bits of each against the contract.

    Raises:
        Refused: they are outside it.
    """
    if not 1 <= number <= MAXIMUM_BATCH:
        raise Refused(f"a request is for 1 to {MAXIMUM_BATCH} keys")
    if size % 8 or not grant.minimum_size <= size <= grant.maximum_size or size <= 0:
        raise Refused("the key size is outside the contract")
    if grant.sizes and size not in grant.sizes:
        raise Refused("the key size is not one of the contract's")


def check_answer(grant: Grant, own: ServiceName, ukms: str, master: str, slaves: Sequence[str]) -> None:
    """Check that AAA granted what this AKMS asked for: this master at this UKMS, and exactly these slaves.

    Raises:
        Refused: it is a grant for something else.
    """
    asked = (own.domain, master, ukms, own.id)
    if (grant.domain, grant.master, grant.master_ukms, grant.master_akms) != asked:
        raise Refused("the grant is for another master, UKMS or AKMS")
    if sorted(site.sae for site in grant.slaves) != sorted(slaves):
        raise Refused("the grant is for other slaves")
    if grant.master in slaves and not grant.loopback:
        raise Refused("the grant does not permit loopback")


def check_request(grant: Grant, own: ServiceName, asker: ServiceName, request: KeyRequest, epoch: int) -> None:
    """Check another AKMS's request against its grant.

    Args:
        grant: verified contents.
        own: this AKMS, the maker.
        asker: the verified caller.
        request: what it asks for.
        epoch: AAA's newest epoch known here.

    A grant serves for all its slaves together: so there is one maker that counts what is made under it.

    Raises:
        Refused: the grant is another AKMS's, too old, or does not cover the request; or slaves are under a
            third AKMS, for which keys are not made.
    """
    if (grant.domain, grant.master_akms) != (own.domain, asker.id):
        raise Refused("the grant was given to another AKMS")
    if epoch - grant.epoch > EPOCHS_BACK:
        raise Refused("the grant is too many epochs old")
    granted = {site.sae: site for site in grant.slaves}
    check_names(grant.master, [site.sae for site in request.slaves])
    if len(granted) != len(request.slaves) or any(granted.get(site.sae) != site for site in request.slaves):
        raise Refused("the grant does not name exactly these slaves at these sites")
    if grant.master in {site.sae for site in request.slaves} and not grant.loopback:
        raise Refused("the grant does not permit loopback")
    if maker_of(request.slaves, asker.id) != own.id:
        raise Refused("the slaves are not under these two AKMSs")
    check_amount(grant, request.number, request.size)
    if request.number > grant.allowance:
        raise Refused("the grant's allowance is smaller than the request")


def maker_of(slaves: Sequence[SlaveSite], asker: str) -> str:
    """Service id of the AKMS that makes keys for these slaves: the only one beside the asker, else the asker.

    Multicast is optional in ETSI GS QKD 014; slaves under more than one AKMS beside the master's are refused.

    Raises:
        Refused: the slaves are under more than one other AKMS.
    """
    others = sorted({site.akms for site in slaves} - {asker})
    if len(others) > 1:
        raise Refused("the slaves are under more than one other AKMS")
    return others[0] if others else asker
