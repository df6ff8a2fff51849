"""The JSON bodies of ETSI GS QKD 014 V1.1.1, as types (clause 6), and its prescribed error texts.

Both sides use them: the UKMS and the simulated QKD module as KME, everyone as client.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec


class Status(msgspec.Struct):
    """Status data format (clause 6.1); sizes in bits."""

    source_KME_ID: str  # noqa: N815
    target_KME_ID: str  # noqa: N815
    master_SAE_ID: str  # noqa: N815
    slave_SAE_ID: str  # noqa: N815
    key_size: int
    stored_key_count: int
    max_key_count: int
    max_key_per_request: int
    max_key_size: int
    min_key_size: int
    max_SAE_ID_count: int  # noqa: N815
    status_extension: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class KeyRequest(msgspec.Struct, omit_defaults=True):
    """Key request data format (clause 6.2). `size` is in bits; None: the status's key_size."""

    number: int = 1
    size: int | None = None
    additional_slave_SAE_IDs: list[str] = []  # noqa: N815
    extension_mandatory: list[dict[str, Any]] = []
    extension_optional: list[dict[str, Any]] = []


class Key(msgspec.Struct, omit_defaults=True):
    """One key of a key container; `key` is base64 (RFC 4648) on the wire."""

    key_ID: UUID  # noqa: N815
    key: bytes
    key_ID_extension: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    key_extension: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET

    def __repr__(self) -> str:
        return f"Key(key_ID={self.key_ID}, key=<{8 * len(self.key)} bits>)"


class KeyContainer(msgspec.Struct, omit_defaults=True):
    """Key container data format (clause 6.3)."""

    keys: list[Key]
    key_container_extension: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class KeyIdEntry(msgspec.Struct, omit_defaults=True):
    """One entry of the key IDs format."""

    key_ID: str  # noqa: N815
    key_ID_extension: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET  # noqa: N815


class KeyIds(msgspec.Struct, omit_defaults=True):
    """Key IDs data format (clause 6.4)."""

    key_IDs: list[KeyIdEntry]  # noqa: N815
    key_IDs_extension: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET  # noqa: N815


class Error(msgspec.Struct, omit_defaults=True):
    """Error data format (clause 6.5)."""

    message: str
    details: list[dict[str, str]] = []


SIZE_NOT_MULTIPLE_OF_8 = "size shall be a multiple of 8"
MANDATORY_UNSUPPORTED = "not all extension_mandatory parameters are supported"
MANDATORY_UNMET = "not all extension_mandatory request options could be met"
KEYS_NOT_FOUND = "one or more keys specified are not found on KME"
