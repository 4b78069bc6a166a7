"""Supernets that jobs' data choose.

Revision ID: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Earlier jobs have a supernet that is named: that of their record."""
    op.add_column("jobs", sa.Column("chosen_supernet", sa.String(500), nullable=True))
    op.add_column("jobs", sa.Column("supernet_probes", sa.JSON(), nullable=True))


def downgrade() -> None:
    """A job is then over the supernet that it chose; one that has not chosen can't be gone on
    with."""
    op.execute("UPDATE jobs SET supernet = chosen_supernet WHERE chosen_supernet IS NOT NULL")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("supernet_probes")
        jobs.drop_column("chosen_supernet")
