"""The directory in force: replaced whole by an import, which revokes what vanished by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select

from aaa import revocation
from aaa.import_file import Contract, ImportFile
from aaa.rights import everything
from aaa.schema import communities, contracts, customers, members, pairs, saes, sites


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did."""

    counts: dict[str, int]
    """Rows now in each table."""
    before: dict[str, int]
    """Rows there were."""
    revocations: int
    """Masters that lost rights by it."""


def replace(connection: Connection, directory: ImportFile, now: int) -> Imported:
    """Put a directory in force instead of the present one, and revoke what vanished by it."""
    rights = everything(connection)
    before = counts(connection)
    for table in (members, communities, pairs, saes, sites, contracts, customers):
        connection.execute(delete(table))
    _fill(connection, customers, ({"id": one.id, "name": one.name} for one in directory.customer))
    _fill(connection, contracts, map(_contract_row, directory.contract))
    _fill(
        connection,
        sites,
        ({"ukms": one.ukms, "akms": one.akms, "kme": one.kme, "customer": one.customer} for one in directory.site),
    )
    _fill(connection, saes, ({"id": one.id, "contract": one.contract, "site": one.ukms} for one in directory.sae))
    _fill(
        connection,
        pairs,
        ({"master": one.id, "slave": slave} for one in directory.sae for slave in one.peers if slave != one.id),
    )
    _fill(connection, communities, ({"id": one.id, "customer": one.customer} for one in directory.community))
    _fill(
        connection, members, ({"community": one.id, "sae": sae} for one in directory.community for sae in one.members)
    )
    ended = revocation.differences(rights, everything(connection))
    for one in ended:
        revocation.record(connection, one, now)
    return Imported(counts(connection), before, len(ended))


def counts(connection: Connection) -> dict[str, int]:
    """How many rows each table of the directory has."""
    return {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in (customers, contracts, sites, saes, pairs, communities)
    }


def _fill(connection: Connection, table: Table, rows: Iterable[dict[str, Any]]) -> None:
    if ready := list(rows):
        connection.execute(insert(table), ready)


def _contract_row(contract: Contract) -> dict[str, Any]:
    return {
        "id": contract.id,
        "customer": contract.customer,
        "service_class": contract.service_class,
        "loopback": contract.loopback,
        "sizes": contract.sizes,
        "default_size": contract.default_size,
        "minimum_size": contract.minimum_size,
        "maximum_size": contract.maximum_size,
        "maximum_keys_per_request": contract.maximum_keys_per_request,
        "quota": contract.quota,
        "rate": contract.rate,
        "burst": contract.allowed_burst(),
        "weight": contract.weight,
    }
