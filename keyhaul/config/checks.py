"""What the configuration types cannot say: addresses, names, and fields that must fit one another.

`check` is called for every table whose fields are of the right types, innermost first. A type without a function of
its own here (or, for the network description, in `description`) has nothing more to check.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import singledispatch
from typing import Any
from urllib.parse import urlsplit

from keyhaul.config.addresses import MalformedAddress, is_loopback, parse_address
from keyhaul.config.problems import Problem
from keyhaul.config.services import (
    AaaConfig,
    AkmsConfig,
    BufferSection,
    CkmsConfig,
    ControllerConfig,
    ControllerSection,
    ControllerServerSection,
    ForwardingEntry,
    GnmiSection,
    LinkSection,
    ListenSection,
    ModuleConfig,
    ModuleSection,
    OperationsSection,
    PathSection,
    PeerSection,
    PoolSection,
    QkdmConfig,
    ServiceConfig,
    ServiceSection,
    StoreSection,
    SuiteName,
    UkmsConfig,
    UserListenSection,
)
from keyhaul.identity.names import MalformedName, Role, ServiceName, node_id

STRENGTH: dict[SuiteName, int] = {"aes-256-gcm": 1, "otp": 2}
"""Which protection is stronger than which."""

_LABEL = re.compile(r"[0-9a-f]{16}")
_LINK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,64}")
_COMMON_NAME = re.compile(r"[A-Za-z0-9._~:@+-]{1,64}")
_SOCKET_LIMIT = 107
_LARGEST_KEY = 65_536


@singledispatch
def check(table: Any) -> Iterator[Problem]:
    """Yield what is wrong with a table; the problems' tables are relative to it."""
    yield from ()


def address_problems(field: str, address: str, *, loopback: bool = False) -> Iterator[Problem]:
    """Yield what is wrong with an address; with `loopback` it must be one of this machine alone."""
    try:
        host, _ = parse_address(address)
    except MalformedAddress as error:
        yield Problem("", field, str(error))
        return
    if loopback and not is_loopback(host):
        yield Problem("", field, f'"{address}" is not a loopback address (127.x.y.z:PORT or [::1]:PORT)')


def suite_problems(suites: list[SuiteName], floor: SuiteName) -> Iterator[Problem]:
    """Yield what is wrong with a list of protections and its floor."""
    if not suites:
        yield Problem("", "suites", 'empty (at least one of "otp", "aes-256-gcm")')
    yield from duplicates("", "suites", suites)
    if suites and floor not in suites:
        yield Problem("", "floor", f'"{floor}" is not in suites (one of {", ".join(suites)})')
    for suite in suites:
        if floor in suites and STRENGTH[suite] < STRENGTH[floor]:
            yield Problem(
                "", "suites", f'"{suite}" is weaker than the floor "{floor}" (leave it out, or lower the floor)'
            )


def at_least(table: Any, lowest: float, *fields: str) -> Iterator[Problem]:
    """Yield the fields that are less than `lowest`."""
    for field in fields:
        value = getattr(table, field)
        if value < lowest:
            yield Problem("", field, f"{value} is too little (at least {lowest})")


def more_than(table: Any, bound: float, *fields: str) -> Iterator[Problem]:
    """Yield the fields that are not more than `bound`."""
    for field in fields:
        value = getattr(table, field)
        if value <= bound:
            yield Problem("", field, f"{value} is too little (more than {bound})")


def duplicates(table: str, field: str, values: Iterable[str]) -> Iterator[Problem]:
    """Yield each value that stands there more than once."""
    for value, count in Counter(values).items():
        if count > 1:
            yield Problem(table, field, f'"{value}" stands there {count} times (once)')


def service_problems(field: str, service: str, *roles: Role) -> Iterator[Problem]:
    """Yield what is wrong with a service id, e.g. ``ckms-8``, which must be of one of the roles."""
    role, hyphen, node = service.partition("-")
    try:
        node_id(node)
        valid = bool(hyphen) and role in roles
    except MalformedName:
        valid = False
    if not valid:
        yield Problem("", field, f'"{service}" is not allowed ({" or ".join(f"{role}-NODE" for role in roles)})')


def _pattern(field: str, value: str, pattern: re.Pattern[str], allowed: str) -> Iterator[Problem]:
    if not pattern.fullmatch(value):
        yield Problem("", field, f'"{value}" is not allowed ({allowed})')


def _common_names(table: Any, *fields: str) -> Iterator[Problem]:
    for field in fields:
        yield from _pattern(
            field, getattr(table, field), _COMMON_NAME, "1 to 64 characters out of A-Z a-z 0-9 . _ ~ : @ + -"
        )


@check.register
def _(table: ServiceSection) -> Iterator[Problem]:
    if table.role not in frozenset(Role):
        yield Problem("", "role", f'"{table.role}" is not allowed ({", ".join(Role)})')
    try:
        node_id(table.node)
    except MalformedName:
        yield Problem("", "node", f'"{table.node}" is no node name (a-z, 0-9 and inner hyphens, 1 to 32 characters)')
    try:
        ServiceName.parse(f"spiffe://{table.domain}/{Role.CKMS}/1")
    except MalformedName:
        yield Problem("", "domain", f'"{table.domain}" is no domain (lower-case letters, digits, dots and hyphens)')


@check.register
def _(table: ListenSection) -> Iterator[Problem]:
    return address_problems("address", table.address)


@check.register
def _(table: OperationsSection) -> Iterator[Problem]:
    yield from address_problems("metrics", table.metrics, loopback=True)
    if not table.socket:
        yield Problem("", "socket", "empty (the path of a Unix socket)")
    elif len(table.socket.encode()) > _SOCKET_LIMIT:
        yield Problem("", "socket", f"too long for a Unix socket (at most {_SOCKET_LIMIT} bytes)")


@check.register
def _(table: StoreSection) -> Iterator[Problem]:
    if not table.path:
        yield Problem("", "path", "empty (the path of the store's file)")
    if table.sealer == "key-file" and not table.key_file:
        yield Problem("", "key_file", 'missing (sealer "key-file" needs the path of one)')
    from_file = table.passphrase_source == "file"  # noqa: S105 - the name of a source
    if table.sealer == "passphrase" and from_file and not table.passphrase_file:
        yield Problem("", "passphrase_file", 'missing (passphrase_source "file" needs the path of one)')


@check.register
def _(table: ModuleSection) -> Iterator[Problem]:
    try:
        url = urlsplit(table.url)
        valid = url.scheme == "https" and bool(url.hostname) and not url.query and not url.fragment
        valid = valid and url.username is None
        _ = url.port
    except ValueError:
        valid = False
    if not valid:
        yield Problem("", "url", f'"{table.url}" is not allowed (https://HOST:PORT)')
    yield from _common_names(table, "kme", "sae", "peer_sae")


@check.register
def _(table: LinkSection) -> Iterator[Problem]:
    yield from _pattern("id", table.id, _LINK, "letters, digits and . _ - , at most 65 characters")
    yield from service_problems("neighbour", table.neighbour, Role.UKMS, Role.AKMS, Role.CKMS)
    if table.address is not None:
        yield from address_problems("address", table.address)
    elif table.initiator:
        yield Problem("", "address", "missing (the end that is the initiator dials: HOST:PORT)")
    yield from suite_problems(table.suites, table.floor)
    yield from at_least(table, 1, "rate", "rotate_messages")
    yield from at_least(table, 1024, "pool")
    yield from at_least(table, 256, "reserve")
    yield from at_least(table, 65_536, "rotate_bytes")
    yield from more_than(table, 0, "rotate_seconds")


@check.register
def _(table: PeerSection) -> Iterator[Problem]:
    yield from service_problems("service", table.service, Role.AKMS, Role.CKMS, Role.AAA)
    yield from address_problems("address", table.address)


@check.register
def _(table: ForwardingEntry) -> Iterator[Problem]:
    yield from _pattern("label", table.label, _LABEL, "16 hexadecimal digits")
    yield from service_problems("previous", table.previous, Role.CKMS)
    if (table.next is None) is not (table.next_label is None):
        yield Problem("", "next_label", "next and next_label belong together (both, or neither to deliver here)")
    if table.next is not None:
        yield from service_problems("next", table.next, Role.CKMS)
    if table.next_label is not None:
        yield from _pattern("next_label", table.next_label, _LABEL, "16 hexadecimal digits")
    yield from more_than(table, 0, "rate", "burst")


@check.register
def _(table: PathSection) -> Iterator[Problem]:
    yield from service_problems("destination", table.destination, Role.CKMS)
    yield from service_problems("next", table.next, Role.CKMS)
    yield from _pattern("label", table.label, _LABEL, "16 hexadecimal digits")
    yield from at_least(table, 0, "rank")
    yield from more_than(table, 0, "rate", "burst")


@check.register
def _(table: ControllerServerSection) -> Iterator[Problem]:
    yield from service_problems("service", table.service, Role.CONTROLLER)
    yield from address_problems("address", table.address)


@check.register
def _(table: ControllerSection) -> Iterator[Problem]:
    if not table.server:
        yield Problem("server", "", "missing (one table for each controller)")
    yield from duplicates("server", "service", (server.service for server in table.server))
    yield from more_than(table, 0, "hard_limit")


@check.register
def _(table: GnmiSection) -> Iterator[Problem]:
    return address_problems("address", table.address)


@check.register
def _(table: PoolSection) -> Iterator[Problem]:
    yield from at_least(table, 0, "minimum")
    if table.maximum < table.minimum:
        yield Problem("", "maximum", f"{table.maximum} is less than minimum ({table.minimum} or more)")
    yield from more_than(table, 0, "horizon")
    if not table.batches or min(table.batches) < 64 or sorted(set(table.batches)) != table.batches:
        yield Problem("", "batches", f"{table.batches} is not allowed (one or more rising sizes of 64 bytes or more)")
    elif table.batches[-1] > 1_048_576:
        yield Problem("", "batches", f"{table.batches[-1]} is too much (at most 1048576 bytes)")


@check.register
def _(table: BufferSection) -> Iterator[Problem]:
    yield from at_least(table, 0, "minimum")
    if table.maximum < table.minimum:
        yield Problem("", "maximum", f"{table.maximum} is less than minimum ({table.minimum} or more)")
    yield from more_than(table, 0, "horizon")


@check.register
def _(table: UserListenSection) -> Iterator[Problem]:
    yield from address_problems("address", table.address)
    yield from _common_names(table, "kme")
    yield from at_least(table, 1, "maximum_connections")


@check.register
def _(table: ModuleConfig) -> Iterator[Problem]:
    yield from _pattern("link", table.link, _LINK, "letters, digits and . _ - , at most 65 characters")
    yield from address_problems("address", table.address)
    yield from _common_names(table, "kme", "peer_kme", "sae", "peer_sae")
    if not table.channel:
        yield Problem("", "channel", "empty (the path of a Unix socket)")
    yield from at_least(table, 0, "rate", "rate_deviation", "qber_deviation", "stock")
    yield from at_least(table, 1, "capacity")
    if not 0 <= table.qber <= 1:
        yield Problem("", "qber", f"{table.qber} is not allowed (a ratio of 0 to 1)")
    yield from key_size_problems("key_size", table.key_size)
    if table.block < table.key_size:
        yield Problem("", "block", f"{table.block} is less than a key of {table.key_size} bits")


def key_size_problems(field: str, bits: int) -> Iterator[Problem]:
    """Yield what is wrong with a size of keys in bits."""
    if bits % 8 or not 8 <= bits <= _LARGEST_KEY:
        yield Problem("", field, f"{bits} is not allowed (bits: a multiple of 8, 8 to {_LARGEST_KEY})")


def _role(table: ServiceConfig, role: Role) -> Iterator[Problem]:
    if table.service.role != role:
        yield Problem("service", "role", f'"{table.service.role}" is not allowed in this file ("{role}")')


def _links(links: list[LinkSection], own: Role, neighbours: Role) -> Iterator[Problem]:
    for place, link in enumerate(links, 1):
        if not link.neighbour.startswith(f"{neighbours}-"):
            yield Problem(
                f"link {place}", "neighbour", f'"{link.neighbour}" is no neighbour of a {own} ({neighbours}-NODE)'
            )
    yield from duplicates("link", "id", (link.id for link in links))
    yield from duplicates("link", "neighbour", (link.neighbour for link in links))


@check.register
def _(table: CkmsConfig) -> Iterator[Problem]:
    yield from _role(table, Role.CKMS)
    yield from _link_key(table)
    yield from _links(table.link, Role.CKMS, Role.CKMS)
    for place, link in enumerate(table.link, 1):
        if link.address is None:
            yield Problem(f"link {place}", "address", "missing (CKMSs dial one another: HOST:PORT)")
    neighbours = {link.neighbour for link in table.link}
    for place, path in enumerate(table.path, 1):
        if path.next not in neighbours:
            yield Problem(f"path {place}", "next", f'"{path.next}" is no neighbour ({_list(neighbours)})')
    yield from duplicates("path", "rank", map(_rank_of, table.path))
    for place, entry in enumerate(table.entry, 1):
        for field, hop in (("previous", entry.previous), ("next", entry.next)):
            if hop is not None and hop not in neighbours:
                yield Problem(f"entry {place}", field, f'"{hop}" is no neighbour ({_list(neighbours)})')
        if entry.next is None and table.akms is None:
            yield Problem(f"entry {place}", "next", "missing (this node has no AKMS to deliver to)")
    yield from duplicates("entry", "label", (f"{entry.label} from {entry.previous}" for entry in table.entry))
    if table.akms is not None:
        yield from _peer("akms", table.akms, Role.AKMS)
    if table.gnmi is not None:
        yield from _classic(table)


@check.register
def _(table: AkmsConfig) -> Iterator[Problem]:
    yield from _role(table, Role.AKMS)
    yield from _link_key(table)
    yield from _links(table.link, Role.AKMS, Role.UKMS)
    yield from _peer("ckms", table.ckms, Role.CKMS)
    yield from _peer("aaa", table.aaa, Role.AAA)
    for place, peer in enumerate(table.peer, 1):
        yield from _peer(f"peer {place}", peer, Role.AKMS)
    yield from duplicates("peer", "service", (peer.service for peer in table.peer))
    yield from more_than(table, 0, "key_lifetime")
    yield from at_least(table, 0, "guard")
    yield from at_least(table, 1, "requests_per_peer")
    if table.guard >= table.key_lifetime:
        yield Problem("", "guard", f"{table.guard} is not less than key_lifetime ({table.key_lifetime})")


@check.register
def _(table: UkmsConfig) -> Iterator[Problem]:
    yield from _role(table, Role.UKMS)
    yield from _link_key(table)
    yield from _peer("akms", table.akms, Role.AKMS)
    if table.link.neighbour != table.akms.service:
        yield Problem("link", "neighbour", f'"{table.link.neighbour}" is not the AKMS ("{table.akms.service}")')
    yield from more_than(table, 0, "request_timeout")


@check.register
def _(table: QkdmConfig) -> Iterator[Problem]:
    yield from _role(table, Role.QKDM)
    if not table.module:
        yield Problem("module", "", "missing (one table for each module)")
    yield from duplicates("module", "link", (module.link for module in table.module))
    yield from duplicates("module", "kme", (module.kme for module in table.module))
    addresses = [module.address for module in table.module if not module.address.endswith(":0")]
    yield from duplicates("module", "address", addresses)


@check.register
def _(table: AaaConfig) -> Iterator[Problem]:
    yield from _role(table, Role.AAA)
    yield from database_problems("database", table.database, "aaa.db")
    yield from more_than(table, 0, "grant_lifetime", "epoch")
    yield from at_least(table, 1, "grant_allowance")
    yield from at_least(table, 7, "keep_days")
    if table.keep_days * 86_400 <= 2 * table.grant_lifetime:
        yield Problem("", "keep_days", f"{table.keep_days} is too little (more than two lives of a grant)")


@check.register
def _(table: ControllerConfig) -> Iterator[Problem]:
    yield from _role(table, Role.CONTROLLER)
    yield from _classic(table)
    yield from database_problems("database", table.database, "controller.db")


def database_problems(field: str, url: str, file: str) -> Iterator[Problem]:
    """Yield what is wrong with the URL of a database; `file` is what an SQLite file is usually called."""
    if "://" not in url:
        yield Problem("", field, f"no URL of a database (e.g. sqlite:///{file})")


def _rank_of(path: PathSection) -> str:
    return f"{path.rank} for {path.destination}" + (f", {path.service_class}" if path.service_class else "")


def _peer(table: str, peer: PeerSection, role: Role) -> Iterator[Problem]:
    if not peer.service.startswith(f"{role}-"):
        yield Problem(table, "service", f'"{peer.service}" is not allowed ({role}-NODE)')


def _link_key(table: UkmsConfig | AkmsConfig | CkmsConfig) -> Iterator[Problem]:
    if table.identity.link_key is None:
        yield Problem("identity", "link_key", "missing (a KMS has a link key: keyhaul pki link-key)")


def _classic(table: CkmsConfig | ControllerConfig) -> Iterator[Problem]:
    if table.identity.classic_certificate is None:
        yield Problem("identity", "classic_certificate", "missing (gNMI needs it: keyhaul pki csr --classic)")


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
