"""Cheaper stand-ins for what most runs do not test: signatures, and how the SQL of a link's state is put together.

They behave alike: a stand-in's signature is refused once a byte of it, or of what it signs, was changed; the link's
rows are the same rows in the same tables. Some runs go without them.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, cast
from unittest.mock import patch

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from sqlalchemy import Connection

from keyhaul.agents.signing import SIGNATURE
from keyhaul.link import links
from keyhaul.link.channel import LANE
from keyhaul.link.record import DirectionState, Record, Side
from keyhaul.link.state import LinkState
from keyhaul.transport.messages.link import Stream


class _Whole:
    """A key that is never taken apart."""

    def private_bytes(self, *arguments: Any) -> NoReturn:
        raise NotImplementedError

    public_bytes = private_bytes_raw = sign_mu = verify_mu = private_bytes

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self


class CheapPublicKey(_Whole, MLDSA65PublicKey):
    """What `CheapSigningKey` signed passes."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed

    def public_bytes_raw(self) -> bytes:
        """Bytes that differ from key to key."""
        return hashlib.sha256(self._seed).digest()

    def verify(self, signature: Any, data: Any, context: Any = None) -> None:
        """See `MLDSA65PublicKey`."""
        if not hmac.compare_digest(bytes(signature), _tag(self._seed, data, context)):
            raise InvalidSignature

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CheapPublicKey) and other._seed == self._seed

    def __hash__(self) -> int:
        return hash(self._seed)


class CheapSigningKey(_Whole, MLDSA65PrivateKey):
    """A keyed digest in the place of ML-DSA-65: nobody here forges, but everything is altered."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed

    def public_key(self) -> CheapPublicKey:
        """See `MLDSA65PrivateKey`."""
        return CheapPublicKey(self._seed)

    def sign(self, data: Any, context: Any = None) -> bytes:
        """See `MLDSA65PrivateKey`."""
        return _tag(self._seed, data, context)


def _tag(seed: bytes, data: Any, context: Any) -> bytes:
    digest = hmac.digest(seed, len(context or b"").to_bytes(4) + (context or b"") + data, "sha256")
    return digest.ljust(SIGNATURE, b"\0")


class CheapCertificate:
    """A certificate as far as services look at it."""

    def __init__(self, key: CheapPublicKey) -> None:
        self._key = key

    def public_key(self) -> CheapPublicKey:
        """The subject's key."""
        return self._key


@functools.cache
def signing_key(seed: bytes, *, cheap: bool) -> MLDSA65PrivateKey:
    """The key of a seed, real or cheap."""
    return cast(MLDSA65PrivateKey, CheapSigningKey(seed)) if cheap else MLDSA65PrivateKey.from_seed_bytes(seed)


_KEY = "link = ? AND direction = ? AND lane = ?"
_FIGURES = "control_bound, payload_bound, control_end, payload_end, last_block"
_VALUES = ", ".join("?" * 8)
_COLUMNS = "number, stream, start, digest, bits"


class PlainLinkState(LinkState):
    """The same rows by prepared SQL."""

    def _read(self, connection: Connection, side: Side) -> tuple[DirectionState, Sequence[Any]]:
        execute = _execute(connection)
        key = self._link, side.value, LANE
        figures = execute(f"SELECT {_FIGURES} FROM link_direction WHERE {_KEY}", key).fetchone()
        if figures is None:
            return DirectionState.empty(), []
        rows = execute(f"SELECT {_COLUMNS} FROM link_block WHERE {_KEY} ORDER BY number", key).fetchall()
        state = DirectionState(
            {Stream.CONTROL: figures[0], Stream.PAYLOAD: figures[1]},
            {Stream.CONTROL: figures[2], Stream.PAYLOAD: figures[3]},
            figures[4],
        )
        return state, rows

    def _write(self, connection: Connection, record: Record, rows: list[dict[str, object]]) -> None:
        execute = _execute(connection)
        key = self._link, record.side.value, LANE
        state = record.state
        execute(
            f"INSERT OR REPLACE INTO link_direction (link, direction, lane, {_FIGURES}) VALUES ({_VALUES})",
            (
                *key,
                state.bounds[Stream.CONTROL],
                state.bounds[Stream.PAYLOAD],
                state.ends[Stream.CONTROL],
                state.ends[Stream.PAYLOAD],
                state.last_block,
            ),
        )
        if record.keep_only is not None:
            kept = ", ".join(str(int(number)) for number in record.keep_only)
            execute(f"DELETE FROM link_block WHERE {_KEY} AND number NOT IN ({kept})", key)
        if drop := [*record.drop, *(block.number for block in record.add)]:
            gone = ", ".join(str(int(number)) for number in drop)
            execute(f"DELETE FROM link_block WHERE {_KEY} AND number IN ({gone})", key)
        for row in rows:
            values = *key, row["number"], row["stream"], row["start"], row["digest"], row["bits"]
            execute(f"INSERT INTO link_block (link, direction, lane, {_COLUMNS}) VALUES ({_VALUES})", values)


def _execute(connection: Connection) -> Any:
    return cast(Any, connection.connection.dbapi_connection).execute


@contextmanager
def shortcuts() -> Iterator[None]:
    """Runs within it keep link state by prepared SQL."""
    with patch.object(links, "LinkState", PlainLinkState):
        yield
