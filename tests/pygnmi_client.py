"""pygnmi, a gNMI client that others wrote, connected to an agent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pygnmi.client import gNMIclient

from keyhaul.transport.tls import TlsFiles


@contextmanager
def connected(address: str, server: str, files: TlsFiles, timeout: float = 10) -> Iterator[Any]:
    """A client of the agent of `server` (service id) at HOST:PORT, with mutual TLS; `timeout` in seconds."""
    host, _, port = address.rpartition(":")
    with gNMIclient(
        target=(host, int(port)),
        path_cert=str(files.certificate),
        path_key=str(files.key),
        path_root=str(files.trust),
        override=server,
        gnmi_timeout=timeout,
    ) as client:
        yield client
