"""Tells the service manager (systemd's sd_notify protocol) that a service is ready or stopping."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Send a state, e.g. ``READY=1``, to ``$NOTIFY_SOCKET`` where there is one. A manager that is gone is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as to, contextlib.suppress(OSError):
        to.sendto(state.encode(), address)
