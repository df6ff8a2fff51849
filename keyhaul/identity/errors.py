"""What can be wrong with certificates and keys, here or at a peer."""

from __future__ import annotations


class IdentityError(Exception):
    """A certificate, key or authority cannot be used; the message says what to do."""


class UnsafePermissions(IdentityError):
    """A private key file that its group or others may read."""


class IdentityRefused(IdentityError):
    """A peer's certificate chain, though valid, does not prove the name of an operator service."""
