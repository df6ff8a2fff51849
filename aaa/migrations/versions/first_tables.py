"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make all tables, and the counters' first values."""
    op.create_table(
        "customers",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_customers"),
    )
    op.create_table(
        "contracts",
        sa.Column("id", sa.String(128), nullable=False),
        sa.Column("customer", sa.String(64), nullable=False),
        sa.Column("service_class", sa.String(16), nullable=False),
        sa.Column("loopback", sa.Boolean(), nullable=False),
        sa.Column("sizes", sa.JSON(), nullable=False),
        sa.Column("default_size", sa.Integer(), nullable=False),
        sa.Column("minimum_size", sa.Integer(), nullable=False),
        sa.Column("maximum_size", sa.Integer(), nullable=False),
        sa.Column("maximum_keys_per_request", sa.Integer(), nullable=False),
        sa.Column("quota", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_contracts"),
        sa.ForeignKeyConstraint(["customer"], ["customers.id"], name="fk_contracts_customer_customers"),
    )
    op.create_index("ix_contracts_customer", "contracts", ["customer"])
    op.create_table(
        "sites",
        sa.Column("ukms", sa.String(64), nullable=False),
        sa.Column("akms", sa.String(64), nullable=False),
        sa.Column("kme", sa.String(64), nullable=False),
        sa.Column("customer", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("ukms", name="pk_sites"),
        sa.ForeignKeyConstraint(["customer"], ["customers.id"], name="fk_sites_customer_customers"),
        sa.UniqueConstraint("kme", name="uq_sites_kme"),
    )
    op.create_index("ix_sites_akms", "sites", ["akms"])
    op.create_table(
        "saes",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("contract", sa.String(128), nullable=False),
        sa.Column("site", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_saes"),
        sa.ForeignKeyConstraint(["contract"], ["contracts.id"], name="fk_saes_contract_contracts"),
        sa.ForeignKeyConstraint(["site"], ["sites.ukms"], name="fk_saes_site_sites"),
    )
    op.create_index("ix_saes_contract", "saes", ["contract"])
    op.create_index("ix_saes_site", "saes", ["site"])
    op.create_table(
        "pairs",
        sa.Column("master", sa.String(64), nullable=False),
        sa.Column("slave", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("master", "slave", name="pk_pairs"),
        sa.ForeignKeyConstraint(["master"], ["saes.id"], name="fk_pairs_master_saes"),
        sa.ForeignKeyConstraint(["slave"], ["saes.id"], name="fk_pairs_slave_saes"),
    )
    op.create_index("ix_pairs_slave", "pairs", ["slave"])
    op.create_table(
        "communities",
        sa.Column("id", sa.String(128), nullable=False),
        sa.Column("customer", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_communities"),
        sa.ForeignKeyConstraint(["customer"], ["customers.id"], name="fk_communities_customer_customers"),
    )
    op.create_table(
        "members",
        sa.Column("community", sa.String(128), nullable=False),
        sa.Column("sae", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("community", "sae", name="pk_members"),
        sa.ForeignKeyConstraint(["community"], ["communities.id"], name="fk_members_community_communities"),
        sa.ForeignKeyConstraint(["sae"], ["saes.id"], name="fk_members_sae_saes"),
    )
    op.create_index("ix_members_sae", "members", ["sae"])
    op.create_table(
        "denials",
        sa.Column("master", sa.String(64), nullable=False),
        sa.Column("slave", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("master", "slave", name="pk_denials"),
    )
    op.create_table(
        "grants",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("master", sa.String(64), nullable=False),
        sa.Column("slaves", sa.JSON(), nullable=False),
        sa.Column("akms", sa.String(64), nullable=False),
        sa.Column("contract", sa.String(128), nullable=False),
        sa.Column("allowance", sa.BigInteger(), nullable=False),
        sa.Column("delivered", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_grants"),
    )
    op.create_index("ix_grants_master", "grants", ["master"])
    op.create_index("ix_grants_contract", "grants", ["contract"])
    op.create_index("ix_grants_issued_at", "grants", ["issued_at"])
    op.create_table(
        "usage",
        sa.Column("batch", sa.String(32), nullable=False),
        sa.Column("grant_id", sa.String(32), nullable=False),
        sa.Column("akms", sa.String(64), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("released_at", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("batch", name="pk_usage"),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"], name="fk_usage_grant_id_grants"),
    )
    op.create_index("ix_usage_grant_id", "usage", ["grant_id"])
    op.create_index("ix_usage_recorded_at", "usage", ["recorded_at"])
    op.create_table(
        "usage_keys",
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("batch", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_usage_keys"),
        sa.ForeignKeyConstraint(["batch"], ["usage.batch"], name="fk_usage_keys_batch_usage"),
    )
    op.create_index("ix_usage_keys_batch", "usage_keys", ["batch"])
    op.create_table(
        "usage_days",
        sa.Column("contract", sa.String(128), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("customer", sa.String(64), nullable=False),
        sa.Column("delivered", sa.BigInteger(), nullable=False),
        sa.Column("expired", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("contract", "day", name="pk_usage_days"),
    )
    op.create_table(
        "revocations",
        sa.Column("serial", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("master", sa.String(64), nullable=False),
        sa.Column("slaves", sa.JSON(), nullable=False),
        sa.Column("grants", sa.JSON(), nullable=False),
        sa.Column("akmss", sa.JSON(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("serial", name="pk_revocations"),
    )
    counters = op.create_table(
        "counters",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_counters"),
    )
    op.bulk_insert(
        counters,
        [
            {"name": "epoch", "value": 1},
            {"name": "epoch-elapsed-ms", "value": 0},
            {"name": "revocation", "value": 0},
        ],
    )
