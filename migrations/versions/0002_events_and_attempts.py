"""Attempts, events, API keys, idempotency keys, workers; pausing, and lists by page.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_JOB_INDEXES = (
    ("created_at", "id"),
    ("status", "created_at", "id"),
    ("dataset_id", "created_at", "id"),
    ("dataset_id", "status", "created_at", "id"),
)


def upgrade() -> None:
    op.add_column("datasets", sa.Column("report", sa.JSON(), nullable=True))
    _change_jobs()
    _create_attempts_and_events()
    _create_keys()
    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("started_at", sa.Float(precision=53), nullable=False),
        sa.Column("seen_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )


def _change_jobs() -> None:
    op.drop_index("ix_jobs_status_created_at", "jobs")
    op.add_column("jobs", sa.Column("stop_request", sa.String(length=16), nullable=True))
    op.add_column("jobs", sa.Column("estimated_finish_at", sa.Float(precision=53), nullable=True))
    op.add_column(
        "jobs", sa.Column("num_events", sa.Integer(), nullable=False, server_default="0")
    )
    op.execute(
        "UPDATE jobs SET stop_request = 'cancel' WHERE cancel_requested AND status = 'running'"
    )
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("cancel_requested")
        jobs.alter_column("num_events", server_default=None)
    for columns in _JOB_INDEXES:
        op.create_index(f"ix_jobs_{'_'.join(columns)}", "jobs", list(columns))


def _create_attempts_and_events() -> None:
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=200), nullable=False),
        sa.Column("started_at", sa.Float(precision=53), nullable=False),
        sa.Column("ended_at", sa.Float(precision=53), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_attempts_job_id")),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_attempts")),
    )
    op.create_table(
        "events",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_events_job_id")),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_events")),
    )


def _create_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_idempotency_keys_job_id")),
        sa.PrimaryKeyConstraint("owner", "key", name=op.f("pk_idempotency_keys")),
    )
    for column in ("created_at", "job_id"):
        op.create_index(op.f(f"ix_idempotency_keys_{column}"), "idempotency_keys", [column])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("revoked_at", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_keys_sha256")),
    )
    op.create_index(
        "uq_api_keys_active_name",
        "api_keys",
        ["name"],
        unique=True,
        sqlite_where=sa.text("revoked_at IS NULL"),
        postgresql_where=sa.text("revoked_at IS NULL"),
    )


def downgrade() -> None:
    """Paused jobs become queued ones, running ones asked to pause go on; events, attempts, keys
    are lost."""
    for table in ("workers", "api_keys", "idempotency_keys", "events", "attempts"):
        op.drop_table(table)
    for columns in _JOB_INDEXES:
        op.drop_index(f"ix_jobs_{'_'.join(columns)}", "jobs")
    op.add_column("jobs", sa.Column("cancel_requested", sa.Boolean(), nullable=True))
    op.execute("UPDATE jobs SET cancel_requested = (coalesce(stop_request, '') = 'cancel')")
    op.execute("UPDATE jobs SET status = 'queued' WHERE status = 'paused'")
    with op.batch_alter_table("jobs") as jobs:
        jobs.alter_column("cancel_requested", existing_type=sa.Boolean(), nullable=False)
        for column in ("num_events", "estimated_finish_at", "stop_request"):
            jobs.drop_column(column)
    op.create_index("ix_jobs_status_created_at", "jobs", ["status", "created_at"])
    op.drop_column("datasets", "report")
