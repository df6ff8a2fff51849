"""Two encryptors far apart get the same keys, over every kind of request that a contract allows."""

from __future__ import annotations

import asyncio
import subprocess
from itertools import pairwise

import pytest

from keyhaul.transport.etsi014 import Client014, Etsi014Error
from tests.laboratory import Network, Sae, keyhaul

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("network")]

DEADLINE = 20.0

Clients = dict[str, Client014]


def remote_pair(network: Network) -> tuple[Sae, Sae]:
    return network.pairs()[0]


async def fetch(clients: Clients, master: str, slave: str, number: int, size: int | None = None) -> list[bytes]:
    """Keys by `enc_keys` at the master's site, checked against `dec_keys` at the slave's."""
    made = await clients[master].get_key(slave, number=number, size=size, deadline=DEADLINE)
    identifiers = [key.key_ID for key in made.keys]
    taken = await clients[slave].get_key_with_ids(master, identifiers, deadline=DEADLINE)
    assert {key.key_ID: key.key for key in taken.keys} == {key.key_ID: key.key for key in made.keys}
    assert len(set(identifiers)) == number
    return [key.key for key in made.keys]


async def test_every_permitted_pair_of_sites_gets_equal_keys(network: Network, clients: Clients) -> None:
    seen: set[bytes] = set()
    for master, slave in network.pairs():
        keys = await fetch(clients, master.id, slave.id, 2)
        assert all(len(key) == 32 for key in keys)
        assert not seen.intersection(keys)
        seen.update(keys)


async def test_128_keys_in_one_request(network: Network, clients: Clients) -> None:
    master, slave = remote_pair(network)
    assert len(set(await fetch(clients, master.id, slave.id, 128))) == 128


@pytest.mark.parametrize("size", [64, 128, 256, 512, 1024])
async def test_sizes_from_64_to_1024_bits(network: Network, clients: Clients, size: int) -> None:
    master, slave = remote_pair(network)
    for key in await fetch(clients, master.id, slave.id, 3, size):
        assert 8 * len(key) == size


async def test_a_loopback_probe_shares_keys_with_itself(network: Network, clients: Clients) -> None:
    probes = [sae for sae in network.saes if sae.loopback]
    assert probes
    for probe in probes:
        await fetch(clients, probe.id, probe.id, 2)


async def test_an_sae_without_loopback_gets_none_with_itself(network: Network, clients: Clients) -> None:
    master, _ = remote_pair(network)
    with pytest.raises(Etsi014Error) as refused:
        await clients[master.id].get_key(master.id, deadline=DEADLINE)
    assert refused.value.status == 400


async def test_additional_slaves_each_get_their_copy(network: Network, clients: Clients) -> None:
    master, slaves = next(
        (master, [slave for slave in network.saes if slave.id in master.peers and slave.node != master.node])
        for master in network.saes
        if sum(network.sae(peer).node != master.node for peer in master.peers) >= 2
    )
    made = await clients[master.id].get_key(
        slaves[0].id, number=3, additional_slaves=[slave.id for slave in slaves[1:]], deadline=DEADLINE
    )
    wanted = {key.key_ID: key.key for key in made.keys}
    for slave in slaves:
        taken = await clients[slave.id].get_key_with_ids(master.id, list(wanted), deadline=DEADLINE)
        assert {key.key_ID: key.key for key in taken.keys} == wanted


async def test_a_key_is_delivered_once(network: Network, clients: Clients) -> None:
    master, slave = remote_pair(network)
    made = await clients[master.id].get_key(slave.id, deadline=DEADLINE)
    identifiers = [made.keys[0].key_ID]
    await clients[slave.id].get_key_with_ids(master.id, identifiers, deadline=DEADLINE)
    with pytest.raises(Etsi014Error, match="not found on KME") as again:
        await clients[slave.id].get_key_with_ids(master.id, identifiers, deadline=DEADLINE)
    assert again.value.status == 400


async def test_of_many_who_ask_for_one_key_one_gets_it(network: Network, clients: Clients) -> None:
    master, slave = remote_pair(network)
    made = await clients[master.id].get_key(slave.id, deadline=DEADLINE)
    identifiers = [made.keys[0].key_ID]
    outcomes = await asyncio.gather(
        *(clients[slave.id].get_key_with_ids(master.id, identifiers, deadline=DEADLINE) for _ in range(8)),
        return_exceptions=True,
    )
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1


async def test_unknown_and_forbidden_slaves_look_alike(network: Network, clients: Clients) -> None:
    master, _ = remote_pair(network)
    forbidden = next(sae.id for sae in network.saes if sae.id != master.id and sae.id not in master.peers)
    answers = []
    for slave in (forbidden, "nobody-at-all"):
        with pytest.raises(Etsi014Error) as refused:
            await clients[master.id].get_key(slave, deadline=DEADLINE)
        answers.append((refused.value.status, refused.value.message))
    assert answers[0] == answers[1]
    assert answers[0][0] == 400


async def test_status_tells_the_terms_and_no_topology(network: Network, clients: Clients) -> None:
    master, slave = remote_pair(network)
    status = await clients[master.id].status(slave.id, deadline=DEADLINE)
    assert (status.master_SAE_ID, status.slave_SAE_ID) == (master.id, slave.id)
    assert status.key_size == 256
    assert status.source_KME_ID != status.target_KME_ID
    text = repr(status)
    assert "akms" not in text
    assert "ckms" not in text


async def test_concurrent_requests_in_both_directions(network: Network, clients: Clients) -> None:
    master, slave = remote_pair(network)
    batches = await asyncio.gather(
        *(fetch(clients, *pair, 16) for pair in [(master.id, slave.id), (slave.id, master.id)] * 6)
    )
    flat = [key for batch in batches for key in batch]
    assert len(set(flat)) == len(flat)


def test_curl_fetches_a_key(network: Network) -> None:
    master, slave = remote_pair(network)
    url = f"{master.ukms}/api/v1/keys/{slave.id}/enc_keys?number=2"
    identity = ["--cert", str(master.certificate), "--key", str(master.key), "--cacert", str(master.ca)]
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--fail-with-body", *identity, url],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.count("key_ID") == 2


def test_the_command_line_fetches_keys(network: Network) -> None:
    master, slave = remote_pair(network)
    made = keyhaul("sae", "get-key", slave.id, "--network", network.directory, "--as", master.id, "--number", "2")
    assert "256" in made.stdout
    for one, other in pairwise(made.stdout.splitlines()):
        assert one != other
