import asyncio
import re

import pytest
from sqlalchemy import select

from service.api.access import Keys
from service.errors import ConflictError, InputError, NotFoundError, UnauthorizedError
from service.record.db.database import Database
from service.record.db.models import ApiKey
from service.record.keys import create_key, has_keys, list_keys, revoke_key

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


def owner_of(database: Database, key_text: str) -> str | None:
    """As the API finds out who asks."""
    keys = Keys(database, are_needed=True)
    try:
        return asyncio.run(keys.owner_of(f"Bearer {key_text}"))
    except UnauthorizedError:
        return None


def test_a_key_opens_until_it_is_revoked(database: Database) -> None:
    assert not has_keys(database)
    key, text = create_key(database, "laptop")
    other, _ = create_key(database, "phone")
    assert re.fullmatch(r"tf_[\w-]{43}", text)
    assert has_keys(database)
    assert owner_of(database, text) == key.id
    assert owner_of(database, text + "x") is None

    revoked = revoke_key(database, "laptop")
    assert revoked.id == key.id
    assert revoked.revoked_at is not None
    assert owner_of(database, text) is None
    assert has_keys(database)
    revoke_key(database, other.id)
    assert not has_keys(database)
    assert {(row.name, row.revoked_at is None) for row in list_keys(database)} == {
        ("laptop", False),
        ("phone", False),
    }


def test_a_key_is_stored_nowhere(database: Database) -> None:
    _, text = create_key(database, "laptop")
    with database.reading() as session:
        row = session.execute(select(ApiKey.__table__)).one()
    assert text not in repr(row)
    assert text[3:] not in repr(row)


def test_a_name_is_used_once_at_a_time(database: Database) -> None:
    first, first_text = create_key(database, "laptop")
    with pytest.raises(ConflictError, match="a key 'laptop' already"):
        create_key(database, "laptop")
    revoke_key(database, "laptop")
    second, _ = create_key(database, "laptop")
    assert revoke_key(database, "laptop").id == second.id != first.id
    assert owner_of(database, first_text) is None


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 201])
def test_a_name_that_cannot_be_one(database: Database, name: str) -> None:
    with pytest.raises(InputError, match="name must have 1 to 200 printable characters"):
        create_key(database, name)
    assert list_keys(database) == []


def test_what_cannot_be_revoked(database: Database) -> None:
    key, _ = create_key(database, "laptop")
    with pytest.raises(NotFoundError, match="no active key 'phone'"):
        revoke_key(database, "phone")
    revoke_key(database, key.id)
    with pytest.raises(NotFoundError, match="no active key 'laptop'"):
        revoke_key(database, "laptop")


def test_an_id_goes_before_a_name(database: Database) -> None:
    key, _ = create_key(database, "laptop")
    misleading, _ = create_key(database, key.id)
    assert revoke_key(database, key.id).name == "laptop"
    assert revoke_key(database, key.id).id == misleading.id


@pytest.mark.parametrize("max_running", [0, -1, 1_000_001])
def test_a_limit_that_cannot_be_one(database: Database, max_running: int) -> None:
    with pytest.raises(InputError, match=f"from 1 to 1000000 but got {max_running}"):
        create_key(database, "laptop", max_running=max_running)
    assert list_keys(database) == []
