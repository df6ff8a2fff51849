"""Whatever stands in a field, a file is read or refused: nothing else happens."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhaul.config.description import Description
from keyhaul.config.loader import ConfigurationError, read
from keyhaul.config.plan import services
from keyhaul.config.writer import to_toml
from keyhaul.randomness import random_bytes

SMALL = Path(__file__).parents[2] / "network/small.toml"

STEERED = SMALL.read_text().replace('roles = ["aaa"]', 'roles = ["aaa", "controller"]')

FILES: dict[type[Any], str] = {Description: STEERED} | {
    type(service.config): to_toml(service.config)
    for service in services(read(STEERED.encode(), Description, SMALL), random_bytes)
}

VALUES = [
    "true",
    "0",
    "-1",
    "1" + "0" * 40,
    "0.5",
    "inf",
    "nan",
    '""',
    '"ckms"',
    '"ckms-"',
    '"127.0.0.1:0"',
    '"https://[::1"',
    '"https://a:99999"',
    '"\\u0000"',
    '"\u00e9"',
    "[]",
    "[1]",
    '["otp"]',
    '["otp", "otp"]',
    "[[]]",
    "{}",
    "{ a = 1 }",
    "2026-11-22",
    "10:00:00",
]


@pytest.mark.parametrize("kind", list(FILES))
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_changed_file_is_read_or_refused(kind: type[Any], data: st.DataObject) -> None:
    lines = FILES[kind].splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(lines) - 1))
        name, equals, _ = lines[place].partition(" = ")
        value = data.draw(st.sampled_from(VALUES))
        lines[place] = f"{name} = {value}" if equals and data.draw(st.booleans()) else ""
    with suppress(ConfigurationError):
        read("\n".join(lines).encode(), kind, Path("config.toml"))
