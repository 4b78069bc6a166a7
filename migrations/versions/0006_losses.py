"""Losses of trials, which tell equally accurate ones apart.

Revision ID: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Those of earlier trials are not known."""
    op.add_column("trials", sa.Column("loss", sa.Float(precision=53), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("trials") as trials:
        trials.drop_column("loss")
