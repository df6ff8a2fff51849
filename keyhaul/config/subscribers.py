"""The file that `keyhaul aaa import` reads, as `keyhaul network init` writes it from a description.

AAA has its own types for what it reads, which know more; these are what a description can say.
"""

from __future__ import annotations

from msgspec import Struct, field

from keyhaul.config.services import ContractClass


class Customer(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[customer]]"""

    id: str


class Contract(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[contract]]; sizes are bits."""

    id: str
    customer: str
    service_class: ContractClass = field(name="class")
    sizes: list[int] = []
    """Allowed sizes; empty: any multiple of 8 from minimum to maximum."""
    default_size: int = 256
    minimum_size: int = 64
    maximum_size: int = 1024
    maximum_keys_per_request: int = 128
    quota: int = 0
    """Keys a day; 0: no limit."""
    rate: float = 0.0
    """Keys a second at each access node; 0: no limit."""
    burst: int = 0
    """Keys at once; 0: a second of the rate, at least one request."""
    weight: int = 1
    """Share beside other contracts where they queue for the same."""
    loopback: bool = False
    """Whether an SAE may ask for keys shared with itself."""


class Site(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[site]]: a UKMS, the AKMS it belongs to, and the KME ID that its SAEs see."""

    ukms: str
    akms: str
    kme: str


class Sae(Struct, forbid_unknown_fields=True, kw_only=True):
    """[[sae]]"""

    id: str
    ukms: str
    contract: str
    peers: list[str] = []
    """Slaves that it may ask keys for as master; itself among them where it may loop back."""


class Subscribers(Struct, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    customer: list[Customer]
    contract: list[Contract]
    site: list[Site]
    sae: list[Sae]
