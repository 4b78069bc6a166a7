"""How Alembic reaches the database: the caller's connection, or the one the settings name."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from service.record.db.database import Database
from service.record.db.models import Base
from service.settings import Settings


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    database = Database(Settings().resolved_database_url)
    with database.migrating() as connection:
        run(connection)
    database.close()
