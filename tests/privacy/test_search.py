"""The search finds known bits and names in every way of writing them down, and nothing in anything else."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest

from keyhaul.randomness import random_bytes
from tests.privacy.search import Bits, Texts, views

SECRETS = [random_bytes(32) for _ in range(50)]
BITS = Bits("keys", SECRETS)

WRITTEN: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda key: key,
    "hex": lambda key: key.hex().encode(),
    "capital hex": lambda key: key.hex().upper().encode(),
    "hex with colons": lambda key: key.hex(":").encode(),
    "hex at an odd place": lambda key: b"f" + key.hex().encode(),
    "base64": base64.b64encode,
    "base64 for URLs": base64.urlsafe_b64encode,
    "base64, second phase": lambda key: base64.b64encode(b"x" + key),
    "base64, third phase": lambda key: base64.b64encode(b"xy" + key),
    "base64 in base64": lambda key: base64.b64encode(json.dumps({"k": base64.b64encode(key).decode()}).encode()),
    "repr": lambda key: repr(key).encode(),
    "repr in JSON": lambda key: json.dumps({"message": f"bits {key!r}"}).encode(),
    "JSON of Latin-1": lambda key: json.dumps(key.decode("latin-1")).encode(),
    "list": lambda key: str(list(key)).encode(),
    "decimal": lambda key: str(int.from_bytes(key, "big")).encode(),
    "little decimal": lambda key: str(int.from_bytes(key, "little")).encode(),
}


@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("piece", [slice(None), slice(0, 15), slice(17, 32), slice(8, 23)])
def test_bits_are_found_however_written(form: str, piece: slice) -> None:
    if "decimal" in form and piece != slice(None):
        piece = slice(0, 24)
    for key in SECRETS[:10]:
        hay = b'{"level":"info","event":"' + WRITTEN[form](key[piece]) + b'","x":1}'
        assert any(BITS.found_in(view) for view in views(hay)), hay


def test_other_bits_are_not_found() -> None:
    for write in WRITTEN.values():
        assert not any(BITS.found_in(view) for view in views(b"".join(write(random_bytes(32)) for _ in range(200))))


def test_names_are_found_in_every_case_and_under_base64() -> None:
    names = Texts("names", ["ukms-westminster"])
    for hay in (b"to UKMS-Westminster", base64.b64encode(b"..ukms-westminster.."), b"ukms-westminster".hex().encode()):
        assert any(names.found_in(view) for view in views(hay))
    assert not any(names.found_in(view) for view in views(b"ukms-west minster"))
