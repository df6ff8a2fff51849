"""The planned network in the database: each version of the description that was applied, the last ones kept."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, insert, select

from controller.planned import PlannedNetwork, planned
from controller.state.clock import wall
from controller.state.schema import descriptions, planned_links, planned_nodes, quarantines
from keyhaul.database.rows import replace_rows

KEPT = 20
"""Versions."""


def apply(connection: Connection, network: PlannedNetwork, digest: str) -> int:
    """Make a network the planned one, as a new version; return its number.

    Args:
        connection: the leader's transaction.
        network: the plan.
        digest: SHA-256 of the description, hexadecimal; where it is the present version's, there is no new one.
    """
    former = connection.execute(
        select(descriptions.c.version, descriptions.c.digest).order_by(descriptions.c.version.desc()).limit(1)
    ).first()
    if former and former.digest == digest:
        return int(former.version)
    version = int(former.version) + 1 if former else 1
    connection.execute(insert(descriptions).values(version=version, applied_at=int(wall(connection)), digest=digest))
    nodes = [
        {
            "version": version,
            "position": position,
            "id": node.id,
            "access": node.access,
            "jurisdiction": node.jurisdiction,
            "place": node.place,
            "target": node.target,
        }
        for position, node in enumerate(network.nodes)
    ]
    links = [
        {
            "version": version,
            "position": position,
            "id": link.id,
            "a": link.a,
            "b": link.b,
            "quantum": link.quantum,
            "rate": link.rate,
            "capacity": link.capacity,
            "km": link.km,
            "suites": sorted(link.suites),
            "risk_groups": sorted(link.risk_groups),
        }
        for position, link in enumerate(network.links)
    ]
    for table, rows in ((planned_nodes, nodes), (planned_links, links)):
        if rows:
            connection.execute(insert(table), rows)
    for table in (planned_nodes, planned_links, descriptions):
        connection.execute(delete(table).where(table.c.version <= version - KEPT))
    return version


def present(connection: Connection) -> int:
    """The number of the present version; 0: there is none."""
    return int(connection.execute(select(func.max(descriptions.c.version))).scalar_one() or 0)


def load(connection: Connection, version: int | None = None) -> tuple[int, PlannedNetwork] | None:
    """A version of the plan, the present one where none is named; None where there is no such."""
    if version is None:
        version = connection.execute(select(func.max(descriptions.c.version))).scalar_one()
    found = connection.execute(select(descriptions.c.version).where(descriptions.c.version == version)).first()
    if found is None:
        return None
    number = int(found.version)
    nodes = select(planned_nodes).where(planned_nodes.c.version == number).order_by(planned_nodes.c.position)
    links = select(planned_links).where(planned_links.c.version == number).order_by(planned_links.c.position)
    return number, planned(connection.execute(nodes), connection.execute(links))


def quarantine(connection: Connection, node: str, reason: str) -> None:
    """Keep a node out of all paths until it is released, over all versions of the plan."""
    replace_rows(connection, quarantines, [{"node": node, "since": int(wall(connection)), "reason": reason}])


def release(connection: Connection, node: str) -> bool:
    """End a node's quarantine; False: there was none."""
    return connection.execute(delete(quarantines).where(quarantines.c.node == node)).rowcount > 0


def quarantined(connection: Connection) -> dict[str, str]:
    """Nodes in quarantine, and why."""
    return {row.node: row.reason for row in connection.execute(select(quarantines))}
