import asyncio
import json
from pathlib import Path

import pytest

from service.api.access import Keys
from service.cli.main import main
from service.errors import UnauthorizedError
from service.record.db.database import Database


def owner_of(database: Database, key_text: str) -> str:
    """As the API finds out who asks."""
    keys = Keys(database, are_needed=True)
    return asyncio.run(keys.owner_of(f"Bearer {key_text}"))


def test_keys_are_made_listed_and_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--data-dir", str(tmp_path)]
    assert main(["keys", "list", *where]) == 0
    assert "no keys" in capsys.readouterr().out

    assert main(["keys", "create", "laptop", *where, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    database = Database(f"sqlite:///{tmp_path / 'tinyfit.db'}")
    assert owner_of(database, made["key"]) == made["id"]
    assert main(["keys", "create", "phone", "--max-running", "2", *where]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert owner_of(database, shown[0]) not in ("", made["id"])
    assert "only time" in shown[2]

    assert main(["keys", "create", "laptop", *where]) == 2
    assert "there is a key 'laptop' already" in capsys.readouterr().err

    assert main(["keys", "revoke", "laptop", *where]) == 0
    assert "no active key" not in capsys.readouterr().out
    with pytest.raises(UnauthorizedError):
        owner_of(database, made["key"])
    database.close()

    assert main(["keys", "list", *where]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2:] for line in lines] == [
        ["revoked", "laptop"],
        ["active", "2", "at", "a", "time", "phone"],
    ]
    assert main(["keys", "list", *where, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["keys"]
    assert listed[0].keys() == {"id", "name", "max_running", "created_at", "revoked_at"}

    assert main(["keys", "revoke", listed[1]["id"], *where]) == 0
    assert "no active key is left" in capsys.readouterr().out
    assert main(["keys", "revoke", "phone", *where]) == 2
    assert "no active key 'phone'" in capsys.readouterr().err
