"""Priorities of jobs, how many jobs of an API key may run at the same time, times of stages.

Revision ID: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_NORMAL = "1"
_QUEUES = (
    ("status", "priority", "created_at", "id"),
    ("status", "owner", "priority", "created_at", "id"),
)
_COUNTED = (("attempts", "ended_at"), ("trials", "finished_at"), ("stage_times", "ended_at"))
"""What metrics go by."""


def upgrade() -> None:
    """Earlier jobs are of normal priority, and nobody's: who made them is not known."""
    op.add_column("api_keys", sa.Column("max_running", sa.Integer(), nullable=True))
    op.add_column(
        "jobs", sa.Column("priority", sa.SmallInteger(), nullable=False, server_default=_NORMAL)
    )
    op.add_column(
        "jobs", sa.Column("owner", sa.String(length=32), nullable=False, server_default="")
    )
    with op.batch_alter_table("jobs") as jobs:
        for name in ("priority", "owner"):
            jobs.alter_column(name, server_default=None)
    for columns in _QUEUES:
        op.create_index(f"ix_jobs_{'_'.join(columns)}", "jobs", list(columns))
    op.create_table(
        "stage_times",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("started_at", sa.Float(precision=53), nullable=False),
        sa.Column("ended_at", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_stage_times_job_id")),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_stage_times")),
    )
    for table, column in _COUNTED:
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column])


def downgrade() -> None:
    """The queue goes by age alone again, and keys have no limit."""
    for table, column in _COUNTED:
        op.drop_index(op.f(f"ix_{table}_{column}"), table)
    op.drop_table("stage_times")
    for columns in _QUEUES:
        op.drop_index(f"ix_jobs_{'_'.join(columns)}", "jobs")
    with op.batch_alter_table("jobs") as jobs:
        for name in ("owner", "priority"):
            jobs.drop_column(name)
    op.drop_column("api_keys", "max_running")
