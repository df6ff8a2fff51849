"""Addresses as configuration files write them: ``HOST:PORT``, an IPv6 host in brackets."""

from __future__ import annotations

import ipaddress
import re

_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
_FORM = "HOST:PORT, e.g. 127.0.0.1:7443 or [::1]:7443"


class MalformedAddress(ValueError):
    """An address that is not of the form HOST:PORT."""


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``. Port 0 lets the system choose, where one listens.

    Raises:
        MalformedAddress: it is not of that form.
    """
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]:")
        valid = bool(bracket) and _is_ip(host, 6)
    else:
        host, colon, port = text.rpartition(":")
        numeric = re.fullmatch(r"[0-9.]+", host) is not None
        valid = bool(colon) and (_is_ip(host, 4) if numeric else _HOST_NAME.fullmatch(host) is not None)
    if not valid or re.fullmatch(r"[0-9]{1,5}", port) is None or int(port) > 65535:
        raise MalformedAddress(f'"{text}" is no address ({_FORM})')
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its loopback interface."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_ip(host: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(host).version == version
    except ValueError:
        return False
