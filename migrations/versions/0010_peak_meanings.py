"""What a job's peaks are those of: the device trainer's process, or torch's allocator.

Revision ID: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Earlier jobs keep theirs, torch's; those that are not finished go on in it."""
    column = sa.Column("peak_meaning", sa.String(16), nullable=False, server_default="torch")
    op.add_column("jobs", column)


def downgrade() -> None:
    """Results keep their figures; what these are those of is then no longer said."""
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("peak_meaning")
