"""Pictures of some of a dataset's images.

Revision ID: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Earlier datasets get theirs when they are uploaded again."""
    op.create_table(
        "contact_sheets",
        sa.Column("dataset_id", sa.String(length=64), nullable=False),
        sa.Column("fit", sa.String(length=16), nullable=False),
        sa.Column("jpeg", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_contact_sheets_dataset_id")
        ),
        sa.PrimaryKeyConstraint("dataset_id", "fit", name=op.f("pk_contact_sheets")),
    )


def downgrade() -> None:
    op.drop_table("contact_sheets")
