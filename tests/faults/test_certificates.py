"""Certificates that are renewed and revoked while keys go on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from keyhaul.transport.etsi014 import Client014
from tests.faults.ground import BACK, Ground
from tests.faults.oracle import under_load
from tests.laboratory import keyhaul
from tests.network.load import more

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("faults")]

MORE_THAN_BUFFERS = 800
"""Keys that users' sites do not have in stock."""

RECONNECTED = {"usage-not-recorded"}
"""Connections end under revoked certificates, perhaps in the middle of a call; usage is sent again."""

DOMAIN = "test.example"
RENEWED = ("ukms-west", "ckms-m", "aaa-dc")


def renew(ground: Ground, service: str, scratch: Path) -> Path:
    """New keys and certificates, as an operator makes them; return where the old certificate is kept."""
    entry = ground.network.service(service)
    authorities = ground.network.directory / "authorities"
    who = ("--role", entry["role"], "--node", entry["node"], "--domain", DOMAIN)
    directory = ground.directory(service)
    made = scratch / f"{service}-{time.monotonic_ns()}"
    made.mkdir(mode=0o700)
    for kind, stem in (((), ""), (("--classic",), "classic-")):
        keyhaul("pki", "csr", *who, "--out", made, *kind)
        request, certificate = made / f"{stem}request.pem", made / f"{stem}certificate.pem"
        keyhaul("pki", "sign", request, "--authorities", authorities, *who, "--out", certificate)
    former = made / "former.pem"
    former.write_bytes((directory / "certificate.pem").read_bytes())
    for name in ("key.pem", "certificate.pem", "classic-key.pem", "classic-certificate.pem"):
        beside = directory / f"{name}.new"
        beside.write_bytes((made / name).read_bytes())
        beside.chmod(0o600)
        beside.replace(directory / name)
    return former


def revoke(ground: Ground, certificate: Path) -> None:
    """Revoke it, and give the list to every service."""
    directory = ground.network.directory
    keyhaul("pki", "revoke", certificate, "--authorities", directory / "authorities", "--install", directory / "nodes")


async def test_renewed_certificates_serve_and_the_old_ones_may_be_revoked(
    ground: Ground, clients: dict[str, Client014], tmp_path: Path
) -> None:
    async with under_load(ground, clients, alarms=RECONNECTED) as case:
        await more(case.seen, 20)
        pids = {service: ground.pid(service) for service in RENEWED}
        former = [await asyncio.to_thread(renew, ground, service, tmp_path) for service in RENEWED]
        await more(case.seen, 40, BACK)
        for certificate in former:
            await asyncio.to_thread(revoke, ground, certificate)
        # Connections that were made under the old ones end now: only under the new ones can others stand.
        await more(case.seen, 200, BACK)
        await ground.serving()
        await more(case.seen, 100, BACK)
        assert pids == {service: ground.pid(service) for service in RENEWED}


async def test_a_renewed_akms_goes_on_making_keys(
    ground: Ground, clients: dict[str, Client014], tmp_path: Path
) -> None:
    async with ground.plainly("akms-a"), under_load(ground, clients, alarms=RECONNECTED) as case:
        await more(case.seen, 20)
        former = await asyncio.to_thread(renew, ground, "akms-a", tmp_path)
        await asyncio.to_thread(revoke, ground, former)
        await more(case.seen, MORE_THAN_BUFFERS, BACK)


async def test_a_revoked_service_is_shut_out_until_it_has_a_new_certificate(
    ground: Ground, clients: dict[str, Client014], tmp_path: Path
) -> None:
    service, neighbours = "ckms-m", ("ckms-a", "ckms-b")
    async with under_load(ground, clients, alarms=RECONNECTED) as case:
        await more(case.seen, 20)
        await asyncio.to_thread(revoke, ground, ground.directory(service) / "certificate.pem")
        try:
            async with asyncio.timeout(BACK):
                while set(await ground.lacks(neighbours)) != set(neighbours):
                    await asyncio.sleep(0.05)
            await more(case.seen, 200, BACK)
            assert set(await ground.lacks(neighbours)) == set(neighbours)
        finally:
            await asyncio.to_thread(renew, ground, service, tmp_path)
            case.over()
        await ground.serving()
        await more(case.seen, 40, BACK)
