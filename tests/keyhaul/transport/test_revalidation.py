"""Connections that stand while the certificates behind them cease to be acceptable."""

from __future__ import annotations

import datetime

from keyhaul.identity.names import Role
from keyhaul.transport.revalidation import Revalidation
from keyhaul.transport.tls import service_server
from tests.keyhaul.transport.house import House
from tests.keyhaul.transport.pki import DAY, leaf_of, service

A, B, C = (service(Role.AKMS, node) for node in "123")


async def test_a_revoked_peer_loses_its_connection_and_others_do_not(house: House) -> None:
    good, bad = house.pki.identity(A), house.pki.identity(C)
    server = house.pki.identity(B, crl=True)
    assert server.crl is not None
    listener = await house.listener(B, identity=server)
    looking = Revalidation(listener._tls, listener._standing)
    staying = await house.channel(A, B, listener.address, identity=good)
    leaving = await house.channel(C, B, listener.address, identity=bad)
    await house.until(lambda: staying.connected and leaving.connected and len(listener._wires) == 2)

    now = datetime.datetime.now(datetime.UTC)
    looking.look(now)
    assert set(listener._wires) == {A, C}
    house.pki.authority(Role.AKMS).revoked.append(leaf_of(bad))
    house.pki.write_crl(server.crl)
    looking.look(now)
    assert set(listener._wires) == {A}
    await house.until(lambda: not leaving.connected)
    assert staying.connected


async def test_an_expired_peer_loses_its_connection(house: House) -> None:
    listener = await house.listener(B)
    channel = await house.channel(A, B, listener.address, identity=house.pki.identity(A, days=(-1, 2)))
    await house.until(lambda: channel.connected and bool(listener._wires))
    looking = Revalidation(listener._tls, listener._standing)
    now = datetime.datetime.now(datetime.UTC)
    looking.look(now + DAY)
    assert listener._wires
    looking.look(now + 3 * DAY)
    assert not listener._wires


async def test_a_renewed_own_certificate_costs_nobody_the_connection(house: House) -> None:
    identity = house.pki.identity(B)
    listener = await house.listener(B, identity=identity)
    channel = await house.channel(A, B, listener.address)
    await house.until(lambda: channel.connected and bool(listener._wires))
    looking = Revalidation(listener._tls, listener._standing)
    house.pki.identity(B)
    looking.look(datetime.datetime.now(datetime.UTC))
    assert listener._wires
    assert service_server(identity).refusal(house.pki.identity(A).certificates()) is None
