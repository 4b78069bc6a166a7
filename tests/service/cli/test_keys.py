import json
from pathlib import Path

import pytest

from service.cli.main import main
from service.record.database import Database
from service.record.keys import find_owner


def test_keys_are_made_listed_and_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--data-dir", str(tmp_path)]
    assert main(["keys", "list", *where]) == 0
    assert "no keys" in capsys.readouterr().out

    assert main(["keys", "create", "laptop", *where, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    database = Database(f"sqlite:///{tmp_path / 'tinyfit.db'}")
    assert find_owner(database, made["key"]) == made["id"]
    assert main(["keys", "create", "phone", "--max-running", "2", *where]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert find_owner(database, shown[0]) is not None
    assert "only time" in shown[2]

    assert main(["keys", "create", "laptop", *where]) == 2
    assert "there is a key 'laptop' already" in capsys.readouterr().err

    assert main(["keys", "revoke", "laptop", *where]) == 0
    assert "no active key" not in capsys.readouterr().out
    assert find_owner(database, made["key"]) is None
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
