"""What is told of connections that came to no RPC."""

from __future__ import annotations

from structlog.testing import capture_logs

from keyhaul.agents.gnmi.handshakes import KEPT, TELL_EVERY, Handshakes


def test_a_line_a_minute_tells_how_many_came_to_nothing() -> None:
    now = 0.0
    shakes = Handshakes(5.0, lambda: now)
    with capture_logs() as logs:
        for number in range(600):
            now = 0.5 * number
            shakes.begun()
            if number % 3 == 0:
                shakes.proved(f"peer {number}")
    told = [line["number"] for line in logs]
    assert 2 <= len(told) <= now / TELL_EVERY
    assert sum(told) <= shakes.begun_total - shakes.proved_total
    assert sum(told) >= 100


def test_where_all_come_to_something_nothing_is_told() -> None:
    now = 0.0
    shakes = Handshakes(5.0, lambda: now)
    with capture_logs() as logs:
        for number in range(600):
            now = 0.5 * number
            shakes.begun()
            shakes.proved(f"peer {number}")
            shakes.proved(f"peer {number}")
    assert logs == []
    assert shakes.begun_total == shakes.proved_total == 600


def test_few_names_are_remembered() -> None:
    shakes = Handshakes(5.0)
    for number in range(3 * KEPT):
        shakes.proved(f"peer {number}")
    assert len(shakes._known) == KEPT
