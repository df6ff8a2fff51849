"""The tables of a UKMS's store.

A row of `copies` is one copy of one key: the master's or one slave's. Its bits are sealed by the store under the
copy's own context and leave the row in the transaction that ends its life here; the row stays for a while. The copies
of one batch lie side by side, in the order of the push, so that a run of keys costs few pages; a slave's copy is found
by its key ID through `places`. Expiry and deletion walk `parts`, the copies of one holder in one batch.
A row of `batches` outlives the keys' lifetime, so that no repeated push can bring a key back.
Times are seconds of this node's clock.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Double, Index, Integer, LargeBinary, MetaData, String, Table, Text

metadata = MetaData()

copies = Table(
    "copies",
    metadata,
    Column("batch", String(64), primary_key=True),
    Column("side", String(6), primary_key=True, doc="master or slave"),
    Column("holder", String(64), primary_key=True, doc="the SAE whose copy it is"),
    Column("position", Integer, primary_key=True, doc="of the key in its batch"),
    Column("key_id", LargeBinary(16), nullable=False),
    Column("state", String(12), nullable=False, doc="keyhaul.keys.states.KeyState"),
    Column("bits", LargeBinary, nullable=True),
    Column("until", Double, nullable=False, doc="end of the key's life; after that, when the row may go"),
    sqlite_with_rowid=False,
)

places = Table(
    "places",
    metadata,
    Column("key_id", LargeBinary(16), primary_key=True),
    Column("holder", String(64), primary_key=True, doc="the slave whose copy it is"),
    Column("batch", String(64), nullable=False),
    Column("position", Integer, nullable=False),
    sqlite_with_rowid=False,
)

parts = Table(
    "parts",
    metadata,
    Column("batch", String(64), primary_key=True),
    Column("side", String(6), primary_key=True),
    Column("holder", String(64), primary_key=True),
    Column("until", Double, nullable=True, doc="end of the keys' life; none once it has been dealt with"),
    Column("look", Double, nullable=False, doc="when to look for rows that may go"),
    Column("unfetched", Double, nullable=True, doc="since when keys have expired unissued; none once the AKMS knows"),
    Index("parts_by_end", "until"),
    Index("parts_by_look", "look"),
    Index("parts_unfetched", "unfetched"),
    sqlite_with_rowid=False,
)

batches = Table(
    "batches",
    metadata,
    Column("batch", String(64), primary_key=True),
    Column("master", String(64), nullable=False),
    Column("slaves", Text, nullable=False, doc="JSON list, in the order of the push"),
    Column("service_class", String(32), nullable=False),
    Column("size", Integer, nullable=False, doc="bits of each key"),
    Column("number", Integer, nullable=False, doc="keys"),
    Column("digest", LargeBinary(32), nullable=False, doc="SHA-256 of the key IDs, one after the other"),
    Column("for_master", Boolean, nullable=False, doc="whether the master's copies came"),
    Column("held_for", Text, nullable=False, doc="JSON list: the slaves whose copies came"),
    Column("void", Boolean, nullable=False, doc="withdrawn whole: nothing of it is accepted any more"),
    Column("settled", Boolean, nullable=False),
    Column("until", Double, nullable=False, doc="end of the keys' life"),
    Index("batches_by_end", "until"),
    sqlite_with_rowid=False,
)

requests = Table(
    "requests",
    metadata,
    Column("request", String(64), primary_key=True),
    Column("master", String(64), nullable=False),
    Column("slaves", Text, nullable=False, doc="JSON list, sorted"),
    Column("size", Integer, nullable=False, doc="bits of each key"),
    Column("remaining", Integer, nullable=False, doc="keys still to come"),
    Column("made", Double, nullable=False),
    Index("requests_by_age", "made"),
    sqlite_with_rowid=False,
)

terms = Table(
    "terms",
    metadata,
    Column("master", String(64), primary_key=True),
    Column("slaves", Text, primary_key=True, doc="JSON list: the first slave, then the others sorted"),
    Column("description", LargeBinary, nullable=False, doc="access.Description as JSON"),
    Column("obtained", Double, nullable=False),
    sqlite_with_rowid=False,
)
