"""What an enc_keys request wants, and whether it can: by itself, and under the AKMS's description of the contract."""

from __future__ import annotations

from dataclasses import dataclass

from keyhaul.identity.names import MalformedName, SaeId, sae_id
from keyhaul.keys.etsi014 import MANDATORY_UNSUPPORTED, SIZE_NOT_MULTIPLE_OF_8, KeyRequest
from keyhaul.transport.messages.access import Description
from services.ukms.etsi014 import Refusal, slave_refused

MAXIMUM_SLAVES = 64
"""Slave SAE IDs that one request may name, whatever a contract says."""

MAXIMUM_NAMED_EXTENSIONS = 16
MAXIMUM_EXTENSION_NAME = 128


@dataclass(frozen=True, slots=True)
class Wanted:
    """An enc_keys request that is well formed."""

    slaves: tuple[SaeId, ...]
    """The slave of the URL first, then the additional ones, without repetition."""
    number: int
    size: int | None
    """Bits; None: the contract's default."""


def wanted_keys(path_sae: str, request: KeyRequest) -> Wanted:
    """Check what of a key request can be checked without knowing the contract.

    Raises:
        Refusal: 400: number or size out of any range, a mandatory extension (none is supported), or a
            slave's name that no SAE can have.
    """
    names = _names(request.extension_mandatory)
    if names:
        details = [
            {"extension_mandatory_unsupported": f"{name[:MAXIMUM_EXTENSION_NAME]} is not supported"}
            for name in names[:MAXIMUM_NAMED_EXTENSIONS]
        ]
        raise Refusal(400, MANDATORY_UNSUPPORTED, details)
    if request.number < 1:
        raise Refusal(400, "number shall be at least 1")
    if request.size is not None and request.size < 1:
        raise Refusal(400, "size shall be at least 8")
    if request.size is not None and request.size % 8:
        raise Refusal(400, SIZE_NOT_MULTIPLE_OF_8)
    if len(request.additional_slave_SAE_IDs) >= MAXIMUM_SLAVES:
        raise Refusal(400, "additional_slave_SAE_IDs names more SAEs than max_SAE_ID_count")
    slaves = dict.fromkeys(named_sae(name) for name in (path_sae, *request.additional_slave_SAE_IDs))
    return Wanted(tuple(slaves), request.number, request.size)


def named_sae(text: str) -> SaeId:
    """Check the name of another SAE that a request gives.

    Raises:
        Refusal: 400, the same as for an SAE that does not exist.
    """
    try:
        return sae_id(text)
    except MalformedName:
        raise slave_refused() from None


def within_terms(wanted: Wanted, terms: Description) -> int:
    """Check a request against the contract; return the size of the keys in bits.

    Raises:
        Refusal: 400.
    """
    if len(wanted.slaves) - 1 > terms.maximum_additional_slaves:
        raise Refusal(400, "additional_slave_SAE_IDs names more SAEs than max_SAE_ID_count")
    if wanted.number > terms.maximum_keys_per_request:
        raise Refusal(400, f"number shall be at most {terms.maximum_keys_per_request}")
    size = terms.default_size if wanted.size is None else wanted.size
    if not terms.minimum_size <= size <= terms.maximum_size:
        raise Refusal(400, f"size shall be from {terms.minimum_size} to {terms.maximum_size}")
    return size


def _names(extensions: list[dict[str, object]]) -> list[str]:
    return list(dict.fromkeys(name for extension in extensions for name in extension))
