"""Structured logs on standard error: lines for people on a terminal, JSON otherwise; never key material.

A last processor lets through only values whose text is known to be harmless. Byte strings and key material become
their length, other objects their type.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal
from uuid import UUID

import structlog

from keyhaul.identity.names import ServiceName
from keyhaul.keys.material import KeyMaterial

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_HARMLESS = (str, int, float, bool, UUID, PurePath, datetime.date, datetime.timedelta, ServiceName, Enum)


def harmless(value: Any, depth: int = 4) -> Any:
    """Return a value that may be logged in the place of any other."""
    match value:
        case None | bool() | int() | float():
            return value
        case bytes() | bytearray() | memoryview() | KeyMaterial():
            return f"<{len(value)} bytes>"
        case BaseException():
            return f"{type(value).__name__}: {value}"
        case Mapping() | list() | tuple() | set() | frozenset() if depth == 0:
            return f"<{type(value).__name__}>"
        case Mapping():
            return {str(harmless(key, 0)): harmless(item, depth - 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [harmless(item, depth - 1) for item in value]
    return str(value) if isinstance(value, _HARMLESS) else f"<{type(value).__name__}>"


def redact(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Processor: replace every value that could show key material."""
    return {name: value if name in _STRUCTURE else harmless(value) for name, value in event.items()}


def put_in_order(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Processor: what every line has comes first."""
    return {**{name: event[name] for name in _FIRST if name in event}, **event}


_FIRST = ("timestamp", "level", "service", "event")
_STRUCTURE = frozenset({"exc_info", "stack_info", "_record", "_from_structlog", "positional_args"})


class _Arguments(logging.Filter):
    """The same for log records of libraries, before their text is put together."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(harmless(value) for value in record.args)
        elif isinstance(record.args, Mapping):
            record.args = {name: harmless(value) for name, value in record.args.items()}
        return True


def set_up(service: str, level: str, style: Literal["auto", "console", "json"]) -> None:
    """Send all logs of this process, those of libraries included, to standard error.

    Args:
        service: e.g. ``ckms-8``, in every line.
        level: the least level that is logged.
        style: `auto` is console on a terminal and JSON elsewhere.
    """

    def name_service(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["service"] = service
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_service,
        redact,
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Arguments())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(style)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    logging.captureWarnings(True)


def _rendering(style: Literal["auto", "console", "json"]) -> list[structlog.typing.Processor]:
    if style == "console" or (style == "auto" and sys.stderr.isatty()):
        return [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=32
            )
        ]
    return [
        structlog.processors.format_exc_info,
        put_in_order,
        structlog.processors.JSONRenderer(serializer=json.dumps),
    ]
