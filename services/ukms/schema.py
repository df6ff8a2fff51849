"""The schema of a UKMS's store: its own tables and the link's, and how older ones become it."""

from __future__ import annotations

from sqlalchemy import Connection, case, func, insert, select, text

from keyhaul.keys.states import KeyState
from keyhaul.link.tables import add_link_tables
from keyhaul.store.interface import Schema, Upgrade
from services.ukms.copies import MASTER, SLAVE
from services.ukms.tables import copies, metadata, parts, places

add_link_tables(metadata)

_MOVE = """
INSERT INTO copies (batch, side, holder, position, key_id, state, bits, until)
SELECT batch, side, holder, row_number() OVER (PARTITION BY batch, side, holder ORDER BY key_id) - 1,
       key_id, state, bits, until
FROM copies_by_key
"""


def _cluster_by_batch(connection: Connection) -> None:
    """Version 1 had one table of copies in the order of their key IDs, and an index over their ends."""
    for step in (
        "DROP INDEX copies_by_batch",
        "DROP INDEX copies_by_end",
        "ALTER TABLE copies RENAME TO copies_by_key",
    ):
        connection.execute(text(step))
    metadata.create_all(connection, [copies, places, parts])
    connection.execute(text(_MOVE))
    connection.execute(text("DROP TABLE copies_by_key"))
    of_slaves = select(copies.c.key_id, copies.c.holder, copies.c.batch, copies.c.position).where(
        copies.c.side == SLAVE
    )
    connection.execute(insert(places).from_select(["key_id", "holder", "batch", "position"], of_slaves))
    alive = copies.c.state.in_((KeyState.RELEASED, KeyState.HELD))
    unfetched = (copies.c.side == MASTER) & (copies.c.state == KeyState.EXPIRED)
    of_parts = select(
        copies.c.batch,
        copies.c.side,
        copies.c.holder,
        func.max(case((alive, copies.c.until))),
        func.min(copies.c.until),
        func.min(case((unfetched, copies.c.until))),
    ).group_by(copies.c.batch, copies.c.side, copies.c.holder)
    columns = ["batch", "side", "holder", "until", "look", "unfetched"]
    connection.execute(insert(parts).from_select(columns, of_parts))


SCHEMA = Schema(name="ukms", version=2, metadata=metadata, upgrades=(Upgrade(2, _cluster_by_batch),))
