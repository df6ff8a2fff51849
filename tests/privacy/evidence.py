"""Everything that a run left behind, and what is known of its identities and keys."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from keyhaul.keys.etsi014 import KeyContainer
from keyhaul.keys.material import KeyMaterial
from keyhaul.store.opening import database_key
from keyhaul.store.sqlcipher import open_raw
from keyhaul.transport.messages.access import Push
from keyhaul.transport.messages.link import Sealed
from keyhaul.transport.messages.relay import Deliver, Submit
from tests.privacy.conversations import Said, conversations
from tests.privacy.search import Bits, Texts
from tests.privacy.tap import Record, records

SECRET_FILES = (
    *("store.key", "bootstrap", "key.pem", "classic-key.pem", "link-key.pem", "sae-key.pem", "grant-key.pem"),
    "statement-key.pem",
)
"""Files that are there to hold secrets."""


@dataclass(frozen=True, slots=True)
class Place:
    """Some bytes, where they were found, and of whom."""

    service: str
    kind: str
    """`message`, `gnmi`, `secret`, `log`, `page`, `row`, `file`, `process`, `memory` or `wire`."""
    name: str
    data: bytes
    said: Said | None = None

    @property
    def role(self) -> str:
        return self.service.partition("-")[0]


@dataclass(slots=True)
class Evidence:
    """One run."""

    directory: Path
    taps: dict[str, list[Record]] = field(default_factory=dict)
    said: dict[str, list[Said]] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    """Everything but the messages and secrets."""
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What was found out of each process."""

    def read_taps(self, directory: Path) -> None:
        """Take what the taps wrote."""
        for path in sorted(directory.glob("*.tap")):
            service = path.name.partition(".")[0]
            found = list(records(path))
            self.taps.setdefault(service, []).extend(found)
            self.said.setdefault(service, []).extend(conversations(service, found))

    def read_logs(self) -> None:
        """Take the logs."""
        for path in sorted((self.directory / "logs").glob("*.log")):
            self.places.append(Place(path.stem, "log", path.name, path.read_bytes()))

    def everything(self) -> Iterator[Place]:
        """All places of the run."""
        for service, messages in self.said.items():
            for said in messages:
                yield Place(service, "message", said.place, said.everything, said)
        for service, found in self.taps.items():
            for record in found:
                if record.kind in ("secret", "gnmi"):
                    yield Place(service, record.kind, record.connection, record.data)
        yield from self.places

    def services(self, role: str) -> list[str]:
        """Service ids of a role that were tapped."""
        return sorted(service for service in self.said if service.startswith(role + "-"))


@dataclass(frozen=True, slots=True)
class Known:
    """What to look for."""

    identities: Texts
    """Of users: what no CKMS may learn."""
    beyond_carrier: Texts
    """Those, and the AKMSs: what no controller may learn."""
    inner: Texts
    """Of the carrier, but its access nodes: what nobody on the users' side may learn, AKMSs and AAA included."""
    topology: dict[str, Texts]
    """By UKMS: what it and its SAEs may not learn."""
    ksa: Bits
    cn: Bits
    kma: Bits
    stored: Bits
    """Keys of stores, and bootstrap secrets."""
    private: Bits
    key_ids: Bits
    """KSA key IDs, as 16 bytes."""


def known(evidence: Evidence) -> Known:
    """Read identities from the description, and keys from where they legitimately are."""
    directory = evidence.directory
    facts = json.loads((directory / "network.json").read_text())
    ksa, ids = _ksa(evidence)
    store_keys = _store_keys(directory)
    labels = {*_configured_labels(directory), *_stated_labels(evidence)}
    identities = list(_identities(directory, facts, evidence))
    akmss = [entry["id"] for entry in facts["services"] if entry["role"] == "akms"]
    return Known(
        identities=Texts("user identity", identities),
        beyond_carrier=Texts("identity beyond the carrier", [*identities, *akmss]),
        inner=Texts("inner carrier", [*labels, *_inner(facts)]),
        topology={
            entry["id"]: Texts("carrier topology", [*labels, *_topology(facts, entry)])
            for entry in facts["services"]
            if entry["role"] == "ukms"
        },
        ksa=Bits("KSA bits", ksa),
        cn=Bits("CN bits", _cn(evidence)),
        kma=Bits("KMA bits", _kma(evidence)),
        stored=Bits("store or bootstrap key", store_keys),
        private=Bits("private key", _private(directory)),
        key_ids=Bits("KSA key ID", [bytes.fromhex(one.replace("-", "")) for one in ids]),
    )


def store_key(config: Path) -> bytes | None:
    """The root key of a service's store, None where it has none."""
    path = config.parent / "store.key"
    return bytes.fromhex(path.read_text().strip()) if path.exists() else None


def rows(database: Path, root_key: bytes) -> list[tuple[str, bytes]]:
    """Every row of a copy of a store, by table, its values one after the other."""
    raw = open_raw(database, database_key(KeyMaterial(root_key)))
    try:
        return _dumped(raw)
    finally:
        raw.close()


def plain_rows(database: Path) -> list[tuple[str, bytes]]:
    """Every row of a copy of a plain SQLite database, as `rows`."""
    with closing(sqlite3.connect(database)) as raw:
        return _dumped(raw)


def _dumped(raw: Any) -> list[tuple[str, bytes]]:
    found = []
    for (table,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for row in raw.execute(f'SELECT * FROM "{table}"'):
            values = (value if isinstance(value, bytes) else str(value).encode() for value in row)
            found.append((table, b"|".join(values)))
    return found


def _identities(directory: Path, facts: dict[str, Any], evidence: Evidence) -> Iterator[str]:
    for sae in facts["saes"]:
        yield sae["id"]
        yield sae["kme"]
    for entry in facts["services"]:
        if entry["role"] == "ukms":
            yield entry["id"]
            yield entry["node"]
    for line in (directory / "aaa.toml").read_text().splitlines():
        name, _, value = line.partition(" = ")
        if name in ("id", "customer", "contract"):
            yield value.strip('"')
    for service in evidence.services("akms"):
        for said in evidence.said[service]:
            if said.path == "/v1/aaa.authorise" and not said.request and b'"grant"' in said.body:
                signed = msgspec.json.decode(said.body)
                yield str(msgspec.json.decode(msgspec.convert(signed["grant"], bytes, strict=False))["id"])


def _inner(facts: dict[str, Any]) -> Iterator[str]:
    """Nodes that have a CKMS and nobody on the users' side, and the links between CKMSs."""
    access = {entry["node"] for entry in facts["services"] if entry["role"] == "akms"}
    for entry in facts["services"]:
        if entry["role"] == "ckms" and entry["node"] not in access:
            yield entry["node"]
            yield entry["metrics"].rpartition(":")[0]
    for link in facts["links"]:
        if all(end.startswith("ckms-") for end in link["ends"]):
            yield link["id"]


def _configured_labels(directory: Path) -> Iterator[str]:
    for config in directory.glob("nodes/*/ckms/config.toml"):
        for line in config.read_text().splitlines():
            name, _, value = line.partition(" = ")
            if name in ("label", "next_label"):
                yield value.strip('"')


def _stated_labels(evidence: Evidence) -> Iterator[str]:
    """Of all statements that a controller recorded and had not withdrawn yet, or sent."""
    for place in evidence.places:
        if place.kind == "row" and place.role == "controller" and place.name == "statements":
            yield from re.findall('"label":"([0-9a-f]{16})"', place.data.decode(errors="replace"))


def _topology(facts: dict[str, Any], ukms: dict[str, Any]) -> Iterator[str]:
    """Everything of the carrier but the UKMS's own access node, and what this says to it."""
    access = next(link for link in facts["links"] if ukms["id"] in link["ends"])
    neighbour = next(end for end in access["ends"] if end != ukms["id"])
    own_nodes = {ukms["node"], neighbour.partition("-")[2]}
    sites = {entry["node"] for entry in facts["services"] if entry["role"] == "ukms"}
    for entry in facts["services"]:
        if entry["role"] == "ckms":
            yield entry["id"]
        if entry["node"] not in own_nodes | sites:
            yield entry["node"]
            yield entry["metrics"].rpartition(":")[0]
        elif entry["node"] not in own_nodes:
            yield entry["id"]
            yield entry["metrics"].rpartition(":")[0]
    for link in facts["links"]:
        if link["id"] != access["id"]:
            yield link["id"]


def _ksa(evidence: Evidence) -> tuple[set[bytes], set[str]]:
    """KSA keys and their IDs: as SAEs got them, and as they were pushed to the UKMSs."""
    keys: set[bytes] = set()
    ids: set[str] = set()
    for service in evidence.services("ukms"):
        for said in evidence.said[service]:
            answer = not said.peer.startswith("qkdm-") and not said.request and "_keys" in said.path
            if answer and said.head.startswith(b"HTTP/1.1 200"):
                for key in msgspec.json.decode(said.body, type=KeyContainer).keys:
                    keys.add(key.key)
                    ids.add(str(key.key_ID))
            elif said.path == "/v1/delivery.push" and said.request:
                push = msgspec.json.decode(msgspec.json.decode(said.body, type=Sealed).clear, type=Push)
                ids.update(map(str, push.key_ids))
        for record in evidence.taps[service]:
            if record.kind == "secret" and record.connection == "delivery.push":
                keys.add(record.data)
    return keys, ids


def _cn(evidence: Evidence) -> set[bytes]:
    kinds: dict[str, type[Submit | Deliver]] = {"/v1/carrier.submit": Submit, "/v1/carrier.deliver": Deliver}
    return {
        msgspec.json.decode(said.body, type=kinds[said.path]).bits
        for service in evidence.services("ckms")
        for said in evidence.said[service]
        if said.request and said.path in kinds
    }


def _kma(evidence: Evidence) -> set[bytes]:
    found: set[bytes] = set()
    for messages in evidence.said.values():
        for said in messages:
            answer = said.peer.startswith("qkdm-") and not said.request and "_keys" in said.path
            if answer and said.head.startswith(b"HTTP/1.1 200"):
                found.update(key.key for key in msgspec.json.decode(said.body, type=KeyContainer).keys)
    return found


def _store_keys(directory: Path) -> set[bytes]:
    roots = {bytes.fromhex(path.read_text().strip()) for path in directory.glob("nodes/*/*/store.key")}
    derived = {database_key(KeyMaterial(root)).reveal() for root in roots}
    bootstrap = {bytes.fromhex(path.read_text().strip()) for path in directory.glob("nodes/*/*/links/*/bootstrap")}
    return roots | derived | bootstrap


def _private(directory: Path) -> set[bytes]:
    found: set[bytes] = set()
    for path in (*directory.glob("nodes/**/*key.pem"), *directory.glob("saes/*/key.pem")):
        try:
            key: Any = load_pem_private_key(path.read_bytes(), None)
        except ValueError:
            continue
        if isinstance(key, EllipticCurvePrivateKey):
            found.add(key.private_numbers().private_value.to_bytes(32, "big"))
        else:
            found.add(key.private_bytes_raw())
    return found
