"""Looks for known texts and known bits in bytes, however they are written down.

Bits are found by runs: any 15 bytes in a row of a known secret, raw or in hexadecimal, base64 (also URL-safe, at any
alignment), as escapes of a Python or C string, as lists of numbers or as one decimal number, one inside the other.
"""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Iterable, Iterator

RUN = 15
"""Bytes in a row of a secret that are certainly found."""

_GRAM = 8

_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}")
_HEX = re.compile(rb"[0-9A-Fa-f]{2}(?:[: -]?[0-9A-Fa-f]{2}){7,}")
_BETWEEN = re.compile(rb"[: -]")
_ESCAPED = re.compile(rb"(?:\\x[0-9A-Fa-f]{2}|\\u00[0-9A-Fa-f]{2}|\\[nrtbf0'\"\\/]|[ -\[\]-~]){16,}")
_NUMBERS = re.compile(rb"(?:[0-9]{1,3}[, ]{1,2}){7,}[0-9]{1,3}")
_DECIMAL = re.compile(rb"[0-9]{30,}")
_ESCAPE = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|u00([0-9A-Fa-f]{2})|(.))")
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f", b"0": b"\0"}
_URL = bytes.maketrans(b"-_", b"+/")
_DEPTH = 4


def views(data: bytes, depth: int = _DEPTH) -> Iterator[bytes]:
    """The bytes as they are, and everything that is written down in them; of what is written in that, no numbers."""
    yield data
    if depth == 0:
        return
    for written in _written(data, whole=depth == _DEPTH):
        if len(written) >= _GRAM:
            yield from views(written, depth - 1)


def _written(data: bytes, *, whole: bool) -> Iterator[bytes]:
    runs = [match.group() for match in _BASE64.finditer(data)]
    for phase in range(4):
        yield b"\0".join(_base64(run[phase:]) for run in runs)
    joined = b"\n".join(runs)
    hexadecimal = [_BETWEEN.sub(b"", match.group()) for match in _HEX.finditer(data if whole else joined)]
    for phase in range(2):
        yield b"\0".join(
            bytes.fromhex(run[phase : phase + (len(run) - phase) // 2 * 2].decode()) for run in hexadecimal
        )
    if b"\\x" in data or b"\\u00" in data:
        escaped = [match.group() for match in _ESCAPED.finditer(data)]
        yield b"\0".join(_ESCAPE.sub(_unescape, run) for run in escaped if b"\\" in run)
    if not whole:
        return
    numbers = (re.findall(rb"[0-9]+", match.group()) for match in _NUMBERS.finditer(data))
    yield b"\0".join(bytes(int(one) for one in run) for run in numbers if all(int(one) < 256 for one in run))
    decimals = [match.group()[:1_000] for match in _DECIMAL.finditer(joined)]
    for order in ("big", "little"):
        yield b"\0".join(_decimal(digits, order) for digits in decimals)


def _base64(run: bytes) -> bytes:
    run = run[: len(run) - (len(run) % 4 == 1)] + b"=" * (-len(run) % 4 % 3)
    return base64.b64decode(run.translate(_URL))


def _unescape(match: re.Match[bytes]) -> bytes:
    digits = match.group(1) or match.group(2)
    if digits:
        return bytes.fromhex(digits.decode())
    return _LETTERS.get(match.group(3), match.group(3))


def _decimal(digits: bytes, order: str) -> bytes:
    number = int(digits)
    return number.to_bytes(-(-number.bit_length() // 8), "big" if order == "big" else "little")


class Bits:
    """Secrets of one kind."""

    def __init__(self, name: str, secrets: Iterable[bytes]) -> None:
        self.name = name
        self._grams: set[int] = set()
        self.count = 0
        for secret in secrets:
            if len(secret) > RUN:
                self.count += 1
                for start in range(len(secret) - _GRAM + 1):
                    self._grams.add(int.from_bytes(secret[start : start + _GRAM], sys.byteorder))

    @classmethod
    def of_all(cls, kinds: Iterable[Bits]) -> Bits:
        """The secrets of all these kinds, as one."""
        whole = cls("any", ())
        for kind in kinds:
            whole._grams |= kind._grams
        return whole

    def found_in(self, view: bytes) -> bool:
        """Whether a run of any of the secrets stands in one view, raw."""
        whole = memoryview(view)[: len(view) // _GRAM * _GRAM]
        return not self._grams.isdisjoint(whole.cast("Q"))


class Texts:
    """Names that must not be read."""

    def __init__(self, name: str, texts: Iterable[str]) -> None:
        self.name = name
        self.texts = sorted({text.lower() for text in texts if text})
        self._pattern = re.compile(b"|".join(re.escape(text.encode()) for text in self.texts) or b"(?!)")

    def found_in(self, view: bytes) -> bytes | None:
        """The first of them in one view, with what stands around it."""
        lower = view.lower()
        match = self._pattern.search(lower)
        if match is None:
            return None
        return view[max(0, match.start() - 40) : match.end() + 40]
