"""Nothing that could be key material is ever in a log line, whoever logs it."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from keyhaul.identity.names import NodeId, Role, ServiceName
from keyhaul.keys.etsi014 import Key
from keyhaul.keys.material import KeyMaterial
from keyhaul.runtime.logging import harmless, set_up

SECRET = b"\xde\xad\xbe\xefsecret-bits-here"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()


def leak(text: str) -> bool:
    return any(part in text for part in ("secret-bits", "xde", "deadbeef", "\\xbe", "3q2+7"))


@pytest.mark.parametrize("style", ["json", "console"])
def test_services_and_libraries_show_only_lengths(capsys: pytest.CaptureFixture[str], style: str) -> None:
    set_up("ckms-8", "debug", style)  # type: ignore[arg-type]
    values = [
        SECRET,
        bytearray(SECRET),
        memoryview(SECRET),
        KeyMaterial(SECRET),
        [SECRET, {"deep": SECRET, SECRET: 1}],
        Key(uuid.uuid4(), SECRET),
        object(),
    ]
    for value in values:
        structlog.get_logger().warning("something", value=value)
        logging.getLogger("library").warning("got %s and %r", value, value)
        logging.getLogger("library").warning("got %(v)s", {"v": value})
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 3 * len(values)
    assert not leak(text)
    assert f"<{len(SECRET)} bytes>" in text


def test_json_lines_have_time_level_and_service(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("ckms-8", "info", "json")
    structlog.get_logger().debug("not shown")
    structlog.get_logger().info("shown", path=Path("/x"), peer=ServiceName("d", Role.CKMS, NodeId("9")))
    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "shown", "level": "info", "service": "ckms-8", "path": "/x", "peer": "ckms-9"}


@pytest.mark.parametrize("style", ["json", "console"])
def test_tracebacks_show_no_values_of_variables(capsys: pytest.CaptureFixture[str], style: str) -> None:
    set_up("ckms-8", "info", style)  # type: ignore[arg-type]
    try:
        hidden = SECRET
        raise ArithmeticError(f"wrong length {len(hidden)}")
    except ArithmeticError:
        structlog.get_logger().exception("failed")
    text = capsys.readouterr().err
    assert "ArithmeticError: wrong length 20" in text
    assert not leak(text)


def test_nesting_is_bounded() -> None:
    nested: list[object] = []
    nested.append(nested)
    assert "<list>" in str(harmless(nested))
