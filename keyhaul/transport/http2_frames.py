"""h2's connection under limits: every frame of the peer is counted before anything is done about it."""

from __future__ import annotations

from typing import Any

from h2 import events as h2_events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event as H2Event
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from keyhaul.transport.limits import Bucket, Limits

_SMALL_FRAME = 256


class _NoLog:
    """h2 describes each step to a logger; nobody listens."""

    def debug(self, *_arguments: object) -> None:
        """Say nothing."""

    def trace(self, *_arguments: object) -> None:
        """Say nothing."""


class Excess(ProtocolError):
    """The peer exceeds a limit."""

    error_code = ErrorCodes.ENHANCE_YOUR_CALM

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CountedConnection(H2Connection):
    """h2's connection, with the peer's frames counted, and alive after GOAWAY (RFC 9113 section 6.8)."""

    MAX_CLOSED_STREAMS = 1_024

    def __init__(self, config: H2Configuration, limits: Limits) -> None:
        super().__init__(config)
        self.now = 0.0
        self.block_began: float | None = None
        """When the header block began that is not complete yet."""
        self._limits = limits
        self._buckets = {
            name: Bucket(getattr(limits, name)) for name in ("resets", "pings", "settings", "fragments", "controls")
        }

    def charge(self, name: str) -> None:
        """Count one event against an allowance.

        Raises:
            Excess: there is nothing left of it.
        """
        if not self._buckets[name].take(self.now):
            raise Excess(name)

    def receive_data(self, data: Any) -> list[H2Event]:
        events = super().receive_data(data)
        waiting = self.incoming_buffer
        if len(waiting._data) > self._limits.frame + 9:
            self._terminate_connection(ErrorCodes.FRAME_SIZE_ERROR)
            raise Excess("frame-size")
        if not waiting._headers_buffer:
            self.block_began = None
        elif self.block_began is None:
            self.block_began = self.now
        if (
            waiting._headers_buffer
            and sum(len(part.data) for part in waiting._headers_buffer) > self._limits.header_bytes
        ):
            self._terminate_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            raise Excess("headers")
        return events

    def end_intake(self, last_stream: int) -> None:
        """Announce that later requests will not be served, without closing what runs."""
        self._prepare_for_sending([GoAwayFrame(0, last_stream_id=last_stream)])

    def _receive_frame(self, frame: Frame) -> list[H2Event]:
        kind = frame.__class__
        if kind is DataFrame:
            if len(frame.data) < _SMALL_FRAME and "END_STREAM" not in frame.flags:  # type: ignore[attr-defined]
                self.charge("fragments")
        elif kind is HeadersFrame:
            if len(frame.data) > self._limits.header_bytes:  # type: ignore[attr-defined]
                raise Excess("headers")
        elif kind is SettingsFrame:
            self.charge("settings")
        elif kind is PingFrame:
            self.charge("pings")
        elif kind is RstStreamFrame:
            self.charge("resets" if frame.stream_id in self.streams else "controls")
        else:
            self.charge("controls")
        return super()._receive_frame(frame)

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[H2Event]]:
        event = h2_events.ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        return [], [event]


def connection(limits: Limits, *, client: bool) -> CountedConnection:
    """h2's connection with settings of ours that keep the peer within limits."""
    config = H2Configuration(
        client_side=client,
        header_encoding=None,
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
        logger=_NoLog(),  # type: ignore[arg-type]
    )
    h2 = CountedConnection(config, limits)
    values = {
        SettingCodes.HEADER_TABLE_SIZE: 4_096,
        SettingCodes.ENABLE_PUSH: 0,
        SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams,
        SettingCodes.INITIAL_WINDOW_SIZE: limits.body + limits.frame,
        SettingCodes.MAX_FRAME_SIZE: limits.frame,
        SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_bytes,
    }
    h2.local_settings = Settings(client=client, initial_values=values)
    h2.max_inbound_frame_size = limits.frame
    h2.decoder.max_header_list_size = limits.header_bytes
    return h2
