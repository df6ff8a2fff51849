"""A refused encryptor is told why by a TLS alert, and its operator finds the reason in the log; on both event loops."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from keyhaul.identity.files import ServiceIdentity
from keyhaul.identity.names import Role
from tests.keyhaul.transport.pki import Pki, service
from tests.keyhaul.transport.test_tls import serve_classic

CALLER = service(Role.CKMS, "8")


async def alert(url: str, trust: Path, identity: ServiceIdentity | None) -> str:
    """The reason that OpenSSL gives a client whose handshake the server refuses."""
    context = ssl.create_default_context(cafile=str(trust))
    context.check_hostname = False
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    host, port = url.removeprefix("https://").rstrip("/").rsplit(":", 1)
    async with asyncio.timeout(5):
        with pytest.raises(ssl.SSLError) as refused:
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.read(1)
    return refused.value.reason


async def test_no_certificate(classic_pki: Pki) -> None:
    trust = classic_pki.identity(CALLER).trust
    async with serve_classic(classic_pki) as url:
        with capture_logs() as lines:
            assert "CERTIFICATE_REQUIRED" in await alert(url, trust, None)
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == ["a client's handshake was refused"]


async def test_an_expired_certificate(classic_pki: Pki) -> None:
    expired = classic_pki.identity(CALLER, days=(-30, -1))
    async with serve_classic(classic_pki) as url:
        assert "EXPIRED" in await alert(url, expired.trust, expired)


async def test_a_revoked_certificate(classic_pki: Pki) -> None:
    caller = classic_pki.identity(CALLER)
    classic_pki.authority(Role.QKDM)
    authority = classic_pki.authority(CALLER.role)
    authority.revoked.append(caller.certificates()[0])
    classic_pki.write_crl(classic_pki.folder / "crl.pem")
    async with serve_classic(classic_pki, crl=classic_pki.folder / "crl.pem") as url:
        assert "REVOKED" in await alert(url, caller.trust, caller)


async def test_an_unknown_authority(classic_pki: Pki, tmp_path: Path) -> None:
    trust = classic_pki.identity(CALLER).trust
    foreign = Pki.make(tmp_path / "foreign", "another root", classic_pki.kind).identity(CALLER)
    async with serve_classic(classic_pki) as url:
        assert "UNKNOWN_CA" in await alert(url, trust, foreign)
