"""Blobs in an artifact store, to which artifacts and datasets refer.

Revision ID: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_REFERRING = ("artifacts", "datasets")


def upgrade() -> None:
    """What is there already stays where it is, in its folder."""
    op.create_table(
        "blobs",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=100), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("is_stored", sa.Boolean(), nullable=False),
        sa.Column("touched_at", sa.Float(precision=53), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_blobs")),
        sa.UniqueConstraint("key", name=op.f("uq_blobs_key")),
    )
    op.create_table(
        "installation",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("collected_at", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_installation")),
    )
    for table in _REFERRING:
        with op.batch_alter_table(table) as changed:
            changed.add_column(sa.Column("blob_sha256", sa.String(length=64), nullable=True))
            changed.create_foreign_key(
                op.f(f"fk_{table}_blob_sha256"), "blobs", ["blob_sha256"], ["sha256"]
            )
        op.create_index(op.f(f"ix_{table}_blob_sha256"), table, ["blob_sha256"])


def downgrade() -> None:
    """What is in the artifact store is lost: jobs that can go on begin anew, bundles and datasets
    are gone."""
    op.execute("DELETE FROM artifacts WHERE blob_sha256 IS NOT NULL")
    for table in _REFERRING:
        op.drop_index(op.f(f"ix_{table}_blob_sha256"), table)
        with op.batch_alter_table(table) as changed:
            changed.drop_constraint(op.f(f"fk_{table}_blob_sha256"), type_="foreignkey")
            changed.drop_column("blob_sha256")
    for table in ("installation", "blobs"):
        op.drop_table(table)
