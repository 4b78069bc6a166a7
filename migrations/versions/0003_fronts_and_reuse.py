"""What trials know of memory, compute and their images; artifacts that other jobs can use.

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_FLAGS = (("is_complete", sa.true()), ("reused", sa.false()))


def upgrade() -> None:
    """Older trials looked at all images; their lean plan is taken to be their candidate's."""
    op.add_column("artifacts", sa.Column("key", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_artifacts_key"), "artifacts", ["key"])

    op.add_column("trials", sa.Column("lean_peak_bytes", sa.BigInteger(), nullable=True))
    op.add_column("trials", sa.Column("lean_plan", sa.JSON(), nullable=True))
    op.add_column("trials", sa.Column("macs", sa.BigInteger(), nullable=True))
    op.add_column("trials", sa.Column("num_images", sa.Integer(), nullable=True))
    op.add_column("trials", sa.Column("correct", sa.LargeBinary(), nullable=True))
    for name, value in _FLAGS:
        op.add_column(
            "trials", sa.Column(name, sa.Boolean(), nullable=False, server_default=value)
        )
    op.execute("UPDATE trials SET lean_peak_bytes = predicted_peak_bytes")
    with op.batch_alter_table("trials") as trials:
        trials.alter_column("lean_peak_bytes", existing_type=sa.BigInteger(), nullable=False)
        for name, _ in _FLAGS:
            trials.alter_column(name, server_default=None)


def downgrade() -> None:
    """Trials that were given up, or that other jobs scored, are lost: they would count as this
    job's own, within its limit."""
    op.execute("DELETE FROM trials WHERE reused OR NOT is_complete")
    with op.batch_alter_table("trials") as trials:
        for name in ("reused", "is_complete", "correct", "num_images", "macs", "lean_plan"):
            trials.drop_column(name)
        trials.drop_column("lean_peak_bytes")
    op.drop_index("ix_artifacts_key", "artifacts")
    op.drop_column("artifacts", "key")
