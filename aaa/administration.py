"""What an operator can ask of AAA: import, show, revoke, restore. JSON objects in and out, one transaction each.

The running service answers these on its local socket; `keyhaul aaa` runs them on the database while it is stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from aaa import counters, revocation
from aaa.accounting import VOID
from aaa.authorisation import DAY
from aaa.directory import counts, replace
from aaa.import_file import parse
from aaa.revocation import Ended
from aaa.rights import deny, everything, restore
from aaa.schema import (
    EPOCH,
    contracts,
    customers,
    denials,
    grants,
    members,
    pairs,
    revocations,
    saes,
    sites,
    usage,
    usage_days,
    usage_keys,
)

Row = dict[str, Any]

NEWEST = 1_000
"""Grants and revocations that are shown: the newest."""


def import_(connection: Connection, arguments: Row, now: int) -> Row:
    """Put the import file `text` (called `name` in errors) in force.

    Raises:
        ConfigurationError: with everything that is wrong in it; nothing was changed.
    """
    name = Path(_text(arguments, "name"))
    done = replace(connection, parse(_text(arguments, "text").encode(), name), now)
    barred = connection.scalar(select(func.count()).select_from(denials)) or 0
    return {"counts": done.counts, "before": done.before, "revocations": done.revocations, "denials": barred}


def revoke(connection: Connection, arguments: Row, now: int) -> Row:
    """End the rights of `master` with `slaves` (none named: all), until `restore`.

    Raises:
        LookupError: there is no such SAE, or the master has no such right.
    """
    master, slaves = _named(arguments)
    rights = everything(connection).get(master)
    if rights is None:
        raise LookupError(f'there is no SAE "{master}"')
    if unknown := [slave for slave in slaves if slave not in rights.slaves]:
        raise LookupError(f'"{master}" has no right to keys with {", ".join(unknown)}')
    deny(connection, master, slaves)
    concerned = frozenset(place.akms for place in [rights.place, *rights.slaves.values()])
    serial = revocation.record(connection, Ended(master, tuple(slaves), concerned), now)
    return {"master": master, "slaves": slaves, "serial": serial}


def lift(connection: Connection, arguments: Row, now: int) -> Row:
    """Give rights back that `revoke` ended.

    Raises:
        LookupError: nothing was revoked by hand there.
    """
    master, slaves = _named(arguments)
    undone = restore(connection, master, slaves)
    if not undone:
        raise LookupError(f'nothing that was revoked by hand stands for "{master}"')
    return {"master": master, "slaves": slaves, "restored": undone, "at": _time(now)}


def show(connection: Connection, arguments: Row, now: int) -> Row:
    """Rows of one subject (`what`), or without one the number of rows of each.

    Raises:
        LookupError: there is no such subject.
    """
    what = arguments.get("what") or "summary"
    if what not in SHOWN:
        raise LookupError(f'"{what}" cannot be shown; there are {", ".join(SHOWN)}')
    return {"what": what, "rows": SHOWN[what](connection, now)}


def _summary(connection: Connection, now: int) -> list[Row]:
    numbers: Row = dict(counts(connection))
    numbers["grants"] = connection.scalar(select(func.count()).select_from(grants))
    numbers["revocations"] = connection.scalar(select(func.count()).select_from(revocations))
    numbers["denials"] = connection.scalar(select(func.count()).select_from(denials))
    today = select(func.coalesce(func.sum(usage_days.c.delivered), 0)).where(usage_days.c.day == now // DAY)
    numbers["keys_today"] = int(connection.execute(today).scalar_one())
    numbers["epoch"] = counters.value(connection, EPOCH)
    return [{"subject": name, "number": number} for name, number in numbers.items()]


def _customers(connection: Connection, _now: int) -> list[Row]:
    number = func.count(saes.c.id)
    query = (
        select(customers.c.id, customers.c.name, number.label("saes"))
        .join(contracts, contracts.c.customer == customers.c.id, isouter=True)
        .join(saes, saes.c.contract == contracts.c.id, isouter=True)
        .group_by(customers.c.id, customers.c.name)
        .order_by(customers.c.id)
    )
    return _rows(connection, query)


def _contracts(connection: Connection, _now: int) -> list[Row]:
    return _rows(connection, select(contracts).order_by(contracts.c.id))


def _sites(connection: Connection, _now: int) -> list[Row]:
    return _rows(connection, select(sites).order_by(sites.c.ukms))


def _saes(connection: Connection, _now: int) -> list[Row]:
    rights = everything(connection)
    query = select(saes.c.id, contracts.c.customer, saes.c.contract, sites.c.ukms, sites.c.akms)
    query = query.join(contracts, contracts.c.id == saes.c.contract).join(sites, sites.c.ukms == saes.c.site)
    rows = _rows(connection, query.order_by(saes.c.id))
    return [{**row, "may_ask_for": sorted(rights[row["id"]].slaves)} for row in rows]


def _usage(connection: Connection, _now: int) -> list[Row]:
    query = select(usage_days).order_by(usage_days.c.day.desc(), usage_days.c.contract).limit(NEWEST)
    return [
        {
            "day": _time(row["day"] * DAY)[:10],
            "customer": row["customer"],
            "contract": row["contract"],
            "delivered": row["delivered"],
            "expired": row["expired"],
        }
        for row in _rows(connection, query)
    ]


def _batches(connection: Connection, _now: int) -> list[Row]:
    void = select(func.count()).where(usage_keys.c.batch == usage.c.batch, usage_keys.c.state == VOID)
    query = (
        select(usage, void.scalar_subquery().label("void"), grants.c.master, grants.c.slaves)
        .join(grants, grants.c.id == usage.c.grant_id)
        .order_by(usage.c.recorded_at.desc(), usage.c.batch)
        .limit(NEWEST)
    )
    return [
        {
            "batch": row["batch"],
            "grant": row["grant_id"],
            "master": row["master"],
            "slaves": row["slaves"],
            "keys": row["number"],
            "void": row["void"],
            "size": row["size"],
            "released": _time(row["released_at"]),
        }
        for row in _rows(connection, query)
    ]


def _grants(connection: Connection, _now: int) -> list[Row]:
    query = select(grants).order_by(grants.c.issued_at.desc(), grants.c.id).limit(NEWEST)
    return [{**row, "issued_at": _time(row["issued_at"])} for row in _rows(connection, query)]


def _revocations(connection: Connection, _now: int) -> list[Row]:
    query = select(revocations).order_by(revocations.c.serial.desc()).limit(NEWEST)
    return [{**row, "ended_at": _time(row["ended_at"])} for row in _rows(connection, query)]


def _pairs(connection: Connection, _now: int) -> list[Row]:
    return _rows(connection, select(pairs).order_by(pairs.c.master, pairs.c.slave))


def _communities(connection: Connection, _now: int) -> list[Row]:
    return _rows(connection, select(members).order_by(members.c.community, members.c.sae))


SHOWN: dict[str, Callable[[Connection, int], list[Row]]] = {
    "summary": _summary,
    "customers": _customers,
    "contracts": _contracts,
    "sites": _sites,
    "saes": _saes,
    "pairs": _pairs,
    "communities": _communities,
    "usage": _usage,
    "batches": _batches,
    "grants": _grants,
    "revocations": _revocations,
}
"""What `show` knows."""

COMMANDS: dict[str, Callable[[Connection, Row, int], Row]] = {
    "import": import_,
    "show": show,
    "revoke": revoke,
    "restore": lift,
}
"""What the local socket answers."""


def _rows(connection: Connection, query: Any) -> list[Row]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _text(arguments: Row, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is missing, or no string")
    return value


def _named(arguments: Row) -> tuple[str, list[str]]:
    slaves = arguments.get("slaves", [])
    if not isinstance(slaves, list) or not all(isinstance(slave, str) for slave in slaves):
        raise ValueError("slaves is no list of strings")
    return _text(arguments, "master"), sorted(set(slaves))


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
