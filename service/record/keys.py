"""API keys. A key is shown once, when it is made; the database holds only its SHA-256."""

from __future__ import annotations

import hashlib
import secrets
import uuid

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.exc import IntegrityError

from service.errors import ConflictError, InputError, NotFoundError
from service.record.db.database import Database, now
from service.record.db.models import ApiKey

_PREFIX = "tf_"
_MAX_NAME_LENGTH = 200
MOST_RUNNING = 1_000_000


def create_key(
    database: Database, name: str, *, max_running: int | None = None
) -> tuple[ApiKey, str]:
    """Make a key and return its row and its text, which is stored nowhere. max_running: most of
    its jobs that run at the same time.

    Raises InputError for a name that can't be one, ConflictError for one in use.
    """
    if not name.strip() or not name.isprintable() or len(name) > _MAX_NAME_LENGTH:
        raise InputError(
            f"a key's name must have 1 to {_MAX_NAME_LENGTH} printable characters but got {name!r}"
        )
    if max_running is not None and not 1 <= max_running <= MOST_RUNNING:
        raise InputError(
            f"a key's max_running must be from 1 to {MOST_RUNNING} but got {max_running}"
        )
    text = _PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
        id=uuid.uuid4().hex,
        name=name,
        sha256=_sha256(text),
        max_running=max_running,
        created_at=now(),
    )
    try:
        with database.writing() as session:
            session.add(key)
            session.flush()
            session.refresh(key)
    except IntegrityError as error:
        raise ConflictError(f"there is a key {name!r} already; revoke it first") from error
    return key, text


def list_keys(database: Database) -> list[ApiKey]:
    """All keys, oldest first, with those that are revoked."""
    with database.reading() as session:
        return list(session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)))


def revoke_key(database: Database, id_or_name: str) -> ApiKey:
    """Make a key useless from now on. Raises NotFoundError where no active key is called so."""
    with database.writing() as session:
        named = select(ApiKey).where(
            _is_active(), or_(ApiKey.id == id_or_name, ApiKey.name == id_or_name)
        )
        by_id_first = named.order_by((ApiKey.id == id_or_name).desc()).with_for_update()
        key = session.scalars(by_id_first).first()
        if key is None:
            raise NotFoundError(
                f"there is no active key {id_or_name!r}; `tinyfit keys list` shows them"
            )
        key.revoked_at = now()
        session.flush()
        session.refresh(key)
    return key


def has_keys(database: Database) -> bool:
    """Whether any key is active, so that requests need one."""
    with database.reading() as session:
        return session.scalar(select(ApiKey.id).where(_is_active()).limit(1)) is not None


def _is_active() -> ColumnElement[bool]:
    return ApiKey.revoked_at.is_(None)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
