"""How a controller signs what it says to one CKMS, and how that is verified: one signature for all of a Set.

A signature is ML-DSA-65 (FIPS 204). Over a statement by itself it is made with the context string `ALONE`, over the
statement's exact JSON bytes. Statements that go out together are the leaves of a Merkle tree, whose root is signed with
the context string `TOGETHER`; each carries the signature and the hashes beside its way to the root:

    signature = ML-DSA-65 signature (3,309 bytes) | turns (2 bytes) | the hashes beside the way up (48 bytes each)

Bit i of the turns tells that the hash of level i stands to the left. A leaf is SHA-384(0 | statement), a node
SHA-384(1 | left | right), so that none is mistaken for the other (RFC 9162, section 2.1). So each statement is kept and
verified by itself, like one that was signed alone, and says nothing of the others but that there were some: all of them
are for one CKMS.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha384
from itertools import zip_longest

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from keyhaul.agents.statements import MAXIMUM_BODY, Statement, StatementRefusal, StatementRefused, encode, read

ALONE = b"keyhaul forwarding statement v1"
TOGETHER = b"keyhaul forwarding statements v1"
"""The context strings, so that a signature over anything else is never one over a statement."""

MAXIMUM_TOGETHER = 1_024
"""Statements under one signature."""

SIGNATURE = 3_309
"""Bytes of an ML-DSA-65 signature (FIPS 204, table 2)."""

_TURNS = 2
_HASH = sha384().digest_size

LONGEST_SIGNATURE = SIGNATURE + _TURNS + _HASH * (MAXIMUM_TOGETHER - 1).bit_length()
"""Bytes, with the way to the root."""


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """A statement as it travels and is kept."""

    body: bytes
    """JSON."""
    signature: bytes
    """With the way to the root, where it was not signed alone."""


def sign(statements: Sequence[Statement], key: MLDSA65PrivateKey) -> list[SignedStatement]:
    """Return the canonical JSON of statements for one CKMS, each with the controller's signature.

    Raises:
        StatementRefused: one of them says something that no node would accept, or there are too many.
    """
    bodies = [encode(statement) for statement in statements]
    for body in bodies:
        read(body)
    match bodies:
        case []:
            return []
        case [body]:
            return [SignedStatement(body, key.sign(body, ALONE))]
    if len(bodies) > MAXIMUM_TOGETHER:
        raise StatementRefused(StatementRefusal.TOO_MANY, f"more than {MAXIMUM_TOGETHER} statements under a signature")
    ways, root = _ways_to_root([_leaf(body) for body in bodies])
    signature = key.sign(root, TOGETHER)
    return [SignedStatement(body, signature + way) for body, way in zip(bodies, ways, strict=True)]


class Verifier:
    """Verifies signed statements; those under one signature that come one after the other cost one verification.

    Args:
        keys: the pinned statement keys of the controllers.
    """

    def __init__(self, keys: Iterable[MLDSA65PublicKey]) -> None:
        self._keys = tuple(keys)
        self._last: tuple[bytes, bytes] | None = None
        """Root and signature that were verified last."""

    def verify(self, signed: SignedStatement) -> Statement:
        """Check the signature and return the statement; nothing of an unsigned body is looked at.

        Raises:
            StatementRefused: too many (bytes); forged; malformed; unknown.
        """
        if len(signed.body) > MAXIMUM_BODY:
            raise StatementRefused(StatementRefusal.TOO_MANY, f"more than {MAXIMUM_BODY} bytes")
        if not self._is_signed(signed):
            raise StatementRefused(StatementRefusal.FORGED, "the signature is of no pinned statement key")
        return read(signed.body)

    def _is_signed(self, signed: SignedStatement) -> bool:
        signature, way = signed.signature[:SIGNATURE], signed.signature[SIGNATURE:]
        if not way:
            return self._is_by_one(signature, signed.body, ALONE)
        root = _root(_leaf(signed.body), way)
        if root is None:
            return False
        if (root, signature) != self._last:
            if not self._is_by_one(signature, root, TOGETHER):
                return False
            self._last = root, signature
        return True

    def _is_by_one(self, signature: bytes, message: bytes, context: bytes) -> bool:
        return any(_is_by(key, signature, message, context) for key in self._keys)


def _is_by(key: MLDSA65PublicKey, signature: bytes, message: bytes, context: bytes) -> bool:
    try:
        key.verify(signature, message, context)
    except InvalidSignature:
        return False
    return True


def _leaf(body: bytes) -> bytes:
    return sha384(b"\x00" + body).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return sha384(b"\x01" + left + right).digest()


def _ways_to_root(leaves: Sequence[bytes]) -> tuple[list[bytes], bytes]:
    """The way of each leaf to the root, and the root; a node without a neighbour goes up as it is."""
    turns: list[list[bool]] = [[] for _ in leaves]
    beside: list[list[bytes]] = [[] for _ in leaves]
    level = list(leaves)
    height = 0
    while len(level) > 1:
        for leaf in range(len(leaves)):
            place = leaf >> height
            if place ^ 1 < len(level):
                turns[leaf].append(bool(place & 1))
                beside[leaf].append(level[place ^ 1])
        pairs = zip_longest(level[::2], level[1::2])
        level = [left if right is None else _node(left, right) for left, right in pairs]
        height += 1
    numbers = [sum(turn << level for level, turn in enumerate(own)) for own in turns]
    ways = [number.to_bytes(_TURNS) + b"".join(hashes) for number, hashes in zip(numbers, beside, strict=True)]
    return ways, level[0]


def _root(leaf: bytes, way: bytes) -> bytes | None:
    """The root that a way leads to; None where it is no way."""
    levels, rest = divmod(len(way) - _TURNS, _HASH)
    turns = int.from_bytes(way[:_TURNS])
    if rest or not 0 < levels <= (MAXIMUM_TOGETHER - 1).bit_length() or turns >> levels:
        return None
    node = leaf
    for level in range(levels):
        beside = way[_TURNS + _HASH * level :][:_HASH]
        node = _node(beside, node) if turns >> level & 1 else _node(node, beside)
    return node
