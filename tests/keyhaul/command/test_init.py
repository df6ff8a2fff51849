"""`network init` lays a whole network out that every part of the suite can load, or nothing."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from keyhaul.command.init import LayoutError, initialise
from keyhaul.config.loader import ConfigurationError, load, resolve
from keyhaul.config.services import AaaConfig, AkmsConfig, CkmsConfig, ControllerConfig, QkdmConfig, UkmsConfig
from keyhaul.config.subscribers import Subscribers
from keyhaul.identity import secretfile
from keyhaul.identity.files import ServiceIdentity, load_certificates
from keyhaul.identity.keys import load_link_private, load_link_public
from keyhaul.identity.names import NodeId, Role, ServiceName
from keyhaul.identity.revocation import load_lists

ROOT = Path(__file__).parents[3]
SMALL = ROOT / "tests/network/small.toml"
TYPES: dict[str, Any] = {
    "ukms": UkmsConfig,
    "akms": AkmsConfig,
    "ckms": CkmsConfig,
    "aaa": AaaConfig,
    "controller": ControllerConfig,
    "qkdm": QkdmConfig,
}


@pytest.fixture(scope="module", params=["deploy/berlin-bonn.toml", "tests/network/small.toml"])
def out(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("n") / "net"
    initialise(ROOT / request.param, directory)
    return directory


def services(out: Path) -> list[tuple[dict[str, str], Any, Path]]:
    listing = json.loads((out / "network.json").read_text())
    found = []
    for service in listing["services"]:
        path = Path(service["config"])
        found.append((service, load(path, TYPES[service["role"]]), path.parent))
    return found


def test_every_configuration_loads_and_every_identity_is_whole(out: Path) -> None:
    roles = {service["role"] for service, _, _ in services(out)}
    authorities = 1 + len(roles - {"qkdm"}) + (2 if "controller" in roles else 0)
    for service, config, directory in services(out):
        assert directory == out / "nodes" / service["node"] / service["role"]
        if service["role"] == "qkdm":
            for module in config.module:
                (leaf,) = load_certificates(resolve(directory, module.certificate))
                assert leaf.subject.rfc4514_string() == f"CN={module.kme}"
            continue
        name = ServiceName(config.service.domain, Role(service["role"]), NodeId(service["node"]))
        identity = ServiceIdentity.load(config.identity, directory, name)
        assert identity.name.id == service["id"]
        assert identity.crl is not None
        assert len(load_lists(identity.crl)) == authorities


def test_every_file_that_a_configuration_names_is_there(out: Path) -> None:
    made_later = {"socket", "store.db", "store.key"}

    def paths(table: Any) -> list[str]:
        if isinstance(table, dict):
            return [path for value in table.values() for path in paths(value)]
        if isinstance(table, list):
            return [path for value in table for path in paths(value)]
        return [table] if isinstance(table, str) and (table.endswith(".pem") or "bootstrap" in table) else []

    for config in out.glob("nodes/*/*/config.toml"):
        named = paths(tomllib.loads(config.read_text()))
        assert named
        for path in set(named) - made_later:
            assert (config.parent / path).is_file(), (config, path)
            assert (config.parent / path).resolve().is_relative_to(config.parent)


def test_nothing_is_open_to_others(out: Path) -> None:
    for path in [out, *out.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_the_two_ends_of_each_link_fit(out: Path) -> None:
    ends: dict[str, list[tuple[str, Any, Path]]] = {}
    for service, config, directory in services(out):
        if service["role"] in ("ukms", "akms", "ckms"):
            links = [config.link] if service["role"] == "ukms" else config.link
            for link in links:
                ends.setdefault(link.id, []).append((service["id"], link, directory))
    assert ends
    for (one, first, here), (other, second, there) in ends.values():
        assert (first.neighbour, second.neighbour) == (other, one)
        assert first.initiator is not second.initiator
        assert (first.module.sae, first.module.peer_sae) == (second.module.peer_sae, second.module.sae)
        secrets = [(place / link.bootstrap).read_text().strip() for place, link in ((here, first), (there, second))]
        assert secrets[0] == secrets[1]
        assert len(bytes.fromhex(secrets[0])) == 64
        for directory, link, peer in ((here, first, there), (there, second, here)):
            pinned = load_link_public(directory / link.peer_link_key)
            assert pinned == load_link_private(peer / "link-key.pem").public_key()
    initiators = {link.id: own for pair in ends.values() for own, link, _ in pair if link.initiator}
    for link_id, own in initiators.items():
        access = any("ukms" in end for end, _, _ in ends[link_id])
        assert own.startswith("ukms") if access else own == f"ckms-{link_id.split('-')[0]}"


def test_modules_come_in_pairs_and_serve_the_kms_of_their_end(out: Path) -> None:
    modules: dict[str, list[Any]] = {}
    urls = {}
    for service, config, directory in services(out):
        if service["role"] == "qkdm":
            for module in config.module:
                modules.setdefault(module.link, []).append((module, resolve(directory, module.channel)))
                urls[module.sae, module.link] = (f"https://{module.address}", module.kme)
        elif service["role"] in ("ukms", "akms", "ckms"):
            for link in [config.link] if service["role"] == "ukms" else config.link:
                urls.setdefault((service["id"], link.id), (link.module.url, link.module.kme))
    for (one, first), (other, second) in modules.values():
        assert first == second
        assert first.parent == out / "run"
        assert one.transmitter is not other.transmitter
        assert (one.kme, one.sae) == (other.peer_kme, other.peer_sae)
    for service, config, _ in services(out):
        if service["role"] == "ckms":
            for link in config.link:
                assert urls[service["id"], link.id] == (link.module.url, link.module.kme)


def test_following_the_labels_leads_to_the_destination_and_no_label_occurs_on_two_hops(out: Path) -> None:
    tables = {service["id"]: config for service, config, _ in services(out) if service["role"] == "ckms"}
    labels: Counter[str] = Counter()
    routes: dict[tuple[str, str, int], list[str]] = {}
    for start, config in tables.items():
        for path in config.path:
            previous, here, label, walked = start, path.next, path.label, [start]
            while True:
                walked.append(here)
                labels[label] += 1
                (entry,) = [e for e in tables[here].entry if (e.label, e.previous) == (label, previous)]
                if entry.next is None:
                    break
                previous, here, label = here, entry.next, entry.next_label
            assert here == path.destination
            assert tables[here].akms is not None
            routes[start, path.destination, path.rank] = walked
    assert set(labels.values()) == {1}
    assert sum(labels.values()) == sum(len(config.entry) for config in tables.values())
    assert {rank for _, _, rank in routes} == {0, 1}
    for (start, end, rank), walked in routes.items():
        if rank == 1:
            assert walked != routes[start, end, 0]


def test_the_listing_is_what_tools_expect(out: Path) -> None:
    listing = json.loads((out / "network.json").read_text())
    for service in listing["services"]:
        assert {"role", "node", "id", "address", "metrics"} <= set(service)
        assert service["id"] == f"{service['role']}-{service['node']}"
    addresses = [service[field] for service in listing["services"] for field in ("address", "metrics")]
    assert len(set(addresses)) == len(addresses)
    ids = {sae["id"] for sae in listing["saes"]}
    sites = {f"https://{each['address']}" for each in listing["services"] if each["role"] == "ukms"}
    for sae in listing["saes"]:
        assert set(sae) == {"id", "node", "ukms", "kme", "certificate", "key", "ca", "peers", "loopback"}
        assert sae["ukms"] in sites
        assert set(sae["peers"]) <= ids - {sae["id"]}
        for field in ("certificate", "key", "ca"):
            assert Path(sae[field]).is_file()
        assert load_certificates(Path(sae["certificate"]))[0].subject.rfc4514_string() == f"CN={sae['id']}"


def test_the_import_file_for_aaa_says_who_may_talk_to_whom(out: Path) -> None:
    directory = load(out / "aaa.toml", Subscribers)
    probes = [sae for sae in directory.sae if sae.id.startswith("probe-")]
    assert len(probes) == 2
    assert all(probe.id in probe.peers for probe in probes)
    assert {contract.id: contract.service_class for contract in directory.contract} == {
        "first/silver": "silver",
        "second/gold": "gold",
        "operator/probe": "bronze",
    }


def test_grants_are_verified_with_the_key_that_signs_them(out: Path) -> None:
    (signing,) = out.glob("nodes/*/aaa/grant-key.pem")
    public = load_link_private(signing).public_key()
    pinned = list(out.glob("nodes/*/akms/aaa-key.pem"))
    assert len(pinned) == 2
    assert all(load_link_public(path) == public for path in pinned)


def test_another_loopback_base_moves_the_whole_network(tmp_path: Path) -> None:
    initialise(SMALL, tmp_path / "n", loopback="127.77.3.0")
    assert "127.20." not in (tmp_path / "n/network.json").read_text()
    assert load(tmp_path / "n/nodes/m/ckms/config.toml", CkmsConfig).listen.address == "127.77.3.3:7443"
    for path in (tmp_path / "n").rglob("*.toml"):
        assert "127.20." not in path.read_text()


@pytest.mark.parametrize("loopback", ["192.0.2.0", "127.255.255.250", "nonsense"])
def test_a_base_that_is_not_loopback_is_refused(tmp_path: Path, loopback: str) -> None:
    with pytest.raises(ConfigurationError):
        initialise(SMALL, tmp_path / "n", loopback=loopback)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_overwritten_unasked(tmp_path: Path) -> None:
    out = tmp_path / "n"
    out.mkdir()
    initialise(SMALL, out)
    before = (out / "network.json").stat().st_ino
    with pytest.raises(LayoutError, match="not empty"):
        initialise(SMALL, out)
    assert (out / "network.json").stat().st_ino == before
    (out / "nodes/m/ckms/store.db").write_bytes(b"old")
    initialise(SMALL, out, force=True)
    assert not (out / "nodes/m/ckms/store.db").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["n"]


def test_force_replaces_networks_only(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(b"x")
    with pytest.raises(LayoutError, match="no network of keyhaul"):
        initialise(SMALL, tmp_path / "photos", force=True)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(LayoutError, match="is no directory"):
        initialise(SMALL, tmp_path / "file", force=True)
    assert (tmp_path / "photos" / "1.jpg").exists()


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    write = secretfile.write

    def failing(path: Path, content: bytes, *, durable: bool = True) -> None:
        written.append(path)
        if len(written) == 40:
            raise OSError(28, "No space left on device", str(path))
        write(path, content, durable=durable)

    monkeypatch.setattr(secretfile, "write", failing)
    with pytest.raises(OSError, match="No space"):
        initialise(SMALL, tmp_path / "n")
    assert len(written) == 40
    assert list(tmp_path.iterdir()) == []


def test_a_path_too_long_for_sockets_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"at most 8[0-9] bytes"):
        initialise(SMALL, tmp_path / ("n" * 107))
    assert list(tmp_path.iterdir()) == []


def test_a_service_directory_works_where_it_is_copied_to(out: Path, tmp_path: Path) -> None:
    service, _, directory = next(each for each in services(out) if each[0]["role"] == "akms")
    shutil.copytree(directory, tmp_path / "copy")
    config = load(tmp_path / "copy/config.toml", AkmsConfig)
    name = ServiceName(config.service.domain, Role.AKMS, NodeId(service["node"]))
    assert ServiceIdentity.load(config.identity, tmp_path / "copy", name).link_key()
