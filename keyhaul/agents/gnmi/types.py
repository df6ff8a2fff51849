"""Types of leaves (RFC 7950 section 9) and their two JSON forms: RFC 7951 (JSON_IETF) and gNMI's plain JSON.

In memory a value is an int, bool, str, bytes or Decimal; an identity is a str without its module. JSON_IETF has 64-bit
integers and decimals as strings and identities with their module; plain JSON has numbers and bare names.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

Value = int | bool | str | bytes | Decimal


class WrongValue(ValueError):
    """A value that its type does not allow; the message says what would be."""


class LeafType(Protocol):
    """How values of one type are checked and written."""

    def check(self, value: Any) -> Value:
        """Return a value as it is kept in memory.

        Raises:
            WrongValue: it is none of this type.
        """
        ...

    def encode(self, value: Any, *, ietf: bool) -> Any:
        """Return the JSON of a checked value."""
        ...

    def decode(self, raw: Any, *, ietf: bool) -> Value:
        """Read a value from its JSON.

        Raises:
            WrongValue: it is none of this type.
        """
        ...

    def text(self, value: Any) -> str:
        """Return the canonical text of a checked value, as keys in paths have it."""
        ...

    def parse(self, text: str) -> Value:
        """Read a value from the text of a path's key.

        Raises:
            WrongValue: it is none of this type.
        """
        ...


_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number; `wide` ones have 64 bits and are strings in JSON_IETF (RFC 7951 section 6.1)."""

    minimum: int
    maximum: int
    wide: bool = False

    def check(self, value: Any) -> int:
        """As `LeafType`."""
        if type(value) is not int or not self.minimum <= value <= self.maximum:
            raise WrongValue(f"expected a whole number from {self.minimum} to {self.maximum}")
        return value

    def encode(self, value: Any, *, ietf: bool) -> Any:
        """As `LeafType`."""
        return str(value) if ietf and self.wide else value

    def decode(self, raw: Any, *, ietf: bool) -> int:
        """As `LeafType`."""
        if isinstance(raw, str) and self.wide:
            return self.parse(raw)
        if ietf and self.wide:
            raise WrongValue("a 64-bit number is a string in JSON_IETF (RFC 7951 section 6.1)")
        return self.check(raw)

    def text(self, value: Any) -> str:
        """As `LeafType`."""
        return str(value)

    def parse(self, text: str) -> int:
        """As `LeafType`."""
        if not _INTEGER.fullmatch(text):
            raise WrongValue(f"expected a whole number from {self.minimum} to {self.maximum}")
        return self.check(int(text))


@dataclass(frozen=True, slots=True)
class Decimal64:
    """A decimal number with a fixed number of digits after the point (RFC 7950 section 9.3)."""

    fraction_digits: int

    def check(self, value: Any) -> Decimal:
        """As `LeafType`; a float is rounded to the digits."""
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            raise WrongValue("expected a decimal number")
        return self._rounded(repr(value) if isinstance(value, float) else str(value))

    def encode(self, value: Any, *, ietf: bool) -> Any:
        """As `LeafType`."""
        return self.text(value) if ietf else float(value)

    def decode(self, raw: Any, *, ietf: bool) -> Decimal:
        """As `LeafType`."""
        if isinstance(raw, str):
            return self.parse(raw)
        if ietf:
            raise WrongValue("a decimal64 is a string in JSON_IETF (RFC 7951 section 6.1)")
        return self.check(raw)

    def text(self, value: Any) -> str:
        """As `LeafType`: at least one digit after the point, none that says nothing."""
        whole, _, fraction = f"{value:f}".partition(".")
        return f"{whole}.{fraction.rstrip('0') or '0'}"

    def parse(self, text: str) -> Decimal:
        """As `LeafType`."""
        if not re.fullmatch(r"[+-]?[0-9]{1,19}(\.[0-9]{1,18})?", text):
            raise WrongValue("expected a decimal number")
        return self._rounded(text)

    def _rounded(self, text: str) -> Decimal:
        try:
            number = Decimal(text).quantize(Decimal(1).scaleb(-self.fraction_digits))
        except InvalidOperation:
            raise WrongValue("expected a decimal number") from None
        if abs(number.scaleb(self.fraction_digits)) >= 2**63:
            raise WrongValue("the number is too great for a decimal64")
        return number


@dataclass(frozen=True, slots=True)
class Boolean:
    """True or false."""

    def check(self, value: Any) -> bool:
        """As `LeafType`."""
        if not isinstance(value, bool):
            raise WrongValue("expected true or false")
        return value

    def encode(self, value: Any, *, ietf: bool) -> Any:
        """As `LeafType`."""
        return value

    def decode(self, raw: Any, *, ietf: bool) -> bool:
        """As `LeafType`."""
        return self.check(raw)

    def text(self, value: Any) -> str:
        """As `LeafType`."""
        return "true" if value else "false"

    def parse(self, text: str) -> bool:
        """As `LeafType`."""
        if text not in ("true", "false"):
            raise WrongValue("expected true or false")
        return text == "true"


@dataclass(frozen=True, slots=True)
class Text:
    """A string."""

    maximum: int = 255
    pattern: str | None = None

    def check(self, value: Any) -> str:
        """As `LeafType`."""
        if not isinstance(value, str) or len(value) > self.maximum:
            raise WrongValue(f"expected a string of at most {self.maximum} characters")
        if self.pattern is not None and not re.fullmatch(self.pattern, value):
            raise WrongValue(f"expected a string of the form {self.pattern}")
        return str(value)

    def encode(self, value: Any, *, ietf: bool) -> Any:
        """As `LeafType`."""
        return value

    def decode(self, raw: Any, *, ietf: bool) -> str:
        """As `LeafType`."""
        return self.check(raw)

    def text(self, value: Any) -> str:
        """As `LeafType`."""
        return str(value)

    def parse(self, text: str) -> str:
        """As `LeafType`."""
        return self.check(text)


@dataclass(frozen=True, slots=True)
class Enumeration(Text):
    """One of a few names."""

    names: frozenset[str] = frozenset()

    def check(self, value: Any) -> str:
        """As `LeafType`."""
        if not isinstance(value, str) or value not in self.names:
            raise WrongValue(f"expected one of {', '.join(sorted(self.names))}")
        return str(value)


def enumeration(*names: str) -> Enumeration:
    """Return the type of exactly these names."""
    return Enumeration(names=frozenset(names))


@dataclass(frozen=True, slots=True)
class Identity(Text):
    """A reference to an identity of one module; JSON_IETF has it with the module (RFC 7951 section 6.8)."""

    module: str = ""
    names: frozenset[str] = frozenset()

    def check(self, value: Any) -> str:
        """As `LeafType`; with or without the module."""
        if not isinstance(value, str) or value.removeprefix(f"{self.module}:") not in self.names:
            raise WrongValue(f"expected an identity out of {', '.join(sorted(self.names))} of {self.module}")
        return value.removeprefix(f"{self.module}:")

    def encode(self, value: Any, *, ietf: bool) -> Any:
        """As `LeafType`."""
        return f"{self.module}:{value}" if ietf else value


def identity(module: str, *names: str) -> Identity:
    """Return the type of a reference to one of these identities."""
    return Identity(module=module, names=frozenset(names))


@dataclass(frozen=True, slots=True)
class Binary:
    """Octets, base64 in JSON."""

    maximum: int

    def check(self, value: Any) -> bytes:
        """As `LeafType`."""
        if not isinstance(value, bytes) or len(value) > self.maximum:
            raise WrongValue(f"expected at most {self.maximum} octets")
        return value

    def encode(self, value: Any, *, ietf: bool) -> Any:
        """As `LeafType`."""
        return self.text(value)

    def decode(self, raw: Any, *, ietf: bool) -> bytes:
        """As `LeafType`."""
        if not isinstance(raw, str):
            raise WrongValue("expected base64")
        return self.parse(raw)

    def text(self, value: Any) -> str:
        """As `LeafType`."""
        return base64.b64encode(value).decode()

    def parse(self, text: str) -> bytes:
        """As `LeafType`."""
        try:
            return self.check(base64.b64decode(text, validate=True))
        except binascii.Error:
            raise WrongValue("expected base64") from None


BOOLEAN = Boolean()
UINT8 = Integer(0, 2**8 - 1)
UINT16 = Integer(0, 2**16 - 1)
UINT32 = Integer(0, 2**32 - 1)
UINT64 = Integer(0, 2**64 - 1, wide=True)
STRING = Text()
UUID = Text(36, "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
