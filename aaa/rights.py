"""Who may have keys with whom: asked for one request, and worked out whole to see what an import takes away.

A master may have keys with a slave that stands in a pair with it, or in a community with it, or is the master itself
where the contract says `loopback`; unless an operator denied it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from aaa.schema import contracts, denials, members, pairs, saes, sites


@dataclass(frozen=True, slots=True)
class Terms:
    """What a contract promises, as grants state it. Sizes are bits."""

    contract: str
    service_class: str
    loopback: bool
    sizes: tuple[int, ...]
    default_size: int
    minimum_size: int
    maximum_size: int
    maximum_keys_per_request: int
    rate: float
    """Keys a second at each access node; 0: no limit."""
    burst: int
    """Keys at once; 0 where there is no rate."""
    weight: int
    """Share beside other contracts."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an SAE is: the directory SAE → UKMS → AKMS."""

    ukms: str
    akms: str
    kme: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One SAE of the directory."""

    sae: str
    place: Place
    terms: Terms
    quota: int
    """Keys a day; 0: no limit."""


@dataclass(frozen=True, slots=True)
class Rights:
    """Everything one master may do."""

    place: Place
    terms: Terms
    slaves: dict[str, Place]


def entries(connection: Connection, names: list[str] | None = None) -> dict[str, Entry]:
    """The directory's entries for these SAEs (None: for all); unknown ones are left out."""
    query = (
        select(saes.c.id, sites, contracts)
        .join(sites, sites.c.ukms == saes.c.site)
        .join(contracts, contracts.c.id == saes.c.contract)
    )
    if names is not None:
        query = query.where(saes.c.id.in_(names))
    found = {}
    for row in connection.execute(query).mappings():
        terms = Terms(
            row[contracts.c.id],
            row[contracts.c.service_class],
            row[contracts.c.loopback],
            tuple(row[contracts.c.sizes]),
            row[contracts.c.default_size],
            row[contracts.c.minimum_size],
            row[contracts.c.maximum_size],
            row[contracts.c.maximum_keys_per_request],
            row[contracts.c.rate],
            row[contracts.c.burst],
            row[contracts.c.weight],
        )
        place = Place(row[sites.c.ukms], row[sites.c.akms], row[sites.c.kme])
        found[row[saes.c.id]] = Entry(row[saes.c.id], place, terms, row[contracts.c.quota])
    return found


def permitted(connection: Connection, master: str, slaves: list[str]) -> set[str]:
    """Those of the slaves that the master may have keys with, itself and its contract's loopback apart.

    The same queries run whatever the answer is.
    """
    paired = connection.scalars(select(pairs.c.slave).where(pairs.c.master == master, pairs.c.slave.in_(slaves)))
    allowed = set(paired)
    own = select(members.c.community).where(members.c.sae == master)
    joined = connection.scalars(select(members.c.sae).where(members.c.community.in_(own), members.c.sae.in_(slaves)))
    allowed.update(joined)
    denied = connection.scalars(
        select(denials.c.slave).where(denials.c.master == master, denials.c.slave.in_([*slaves, ""]))
    )
    for slave in denied:
        allowed = allowed - {slave} if slave else set()
    return allowed


def denied(connection: Connection, master: str, slave: str) -> bool:
    """Whether an operator took this right away."""
    query = select(denials.c.slave).where(denials.c.master == master, denials.c.slave.in_([slave, ""]))
    return connection.execute(query).first() is not None


def everything(connection: Connection) -> dict[str, Rights]:
    """All rights of all masters as they are now."""
    directory = entries(connection)
    allowed: dict[str, set[str]] = defaultdict(set)
    for master, slave in connection.execute(select(pairs.c.master, pairs.c.slave)):
        allowed[master].add(slave)
    communities: dict[str, set[str]] = defaultdict(set)
    for community, sae in connection.execute(select(members.c.community, members.c.sae)):
        communities[community].add(sae)
    for together in communities.values():
        for master in together:
            allowed[master] |= together
    taken: dict[str, set[str]] = defaultdict(set)
    for master, slave in connection.execute(select(denials.c.master, denials.c.slave)):
        taken[master].add(slave)
    rights = {}
    for master, entry in directory.items():
        slaves = allowed[master] - {master} | ({master} if entry.terms.loopback else set())
        slaves = set() if "" in taken[master] else slaves - taken[master]
        rights[master] = Rights(entry.place, entry.terms, {slave: directory[slave].place for slave in slaves})
    return rights


def deny(connection: Connection, master: str, slaves: list[str]) -> None:
    """Take rights away until `restore`: with these slaves, or all (none named)."""
    standing = set(connection.scalars(select(denials.c.slave).where(denials.c.master == master)))
    rows = [{"master": master, "slave": slave} for slave in slaves or [""] if slave not in standing]
    if rows:
        connection.execute(insert(denials), rows)


def restore(connection: Connection, master: str, slaves: list[str]) -> int:
    """Undo `deny`, for these slaves or altogether (none named); return how many denials there were."""
    undone = delete(denials).where(denials.c.master == master)
    if slaves:
        undone = undone.where(denials.c.slave.in_(slaves))
    return connection.execute(undone).rowcount
