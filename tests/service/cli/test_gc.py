import json
from pathlib import Path

import pytest

from service.cli.main import main
from service.record.files.blobs import Blobs
from service.settings import Settings
from tests.service.support.stores import stored_kinds


def test_garbage_is_told_and_removed(
    settings: Settings, blobs: Blobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    blobs.keep(path)
    blobs.objects.write("orphan", b"y" * 500)
    where = ["--data-dir", str(settings.data_dir)]

    assert main(["gc", *where, "--grace", "0", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        "1.5 kB would be freed: 1 blobs that nothing uses, 1 objects of no blob"
    )
    assert len(stored_kinds(settings, blobs.database)) == 2

    assert main(["gc", *where, "--json"]) == 0  # what was stored just now may be about to be used
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "num_blobs": 0,
        "num_bytes": 0,
        "num_orphans": 1,
        "orphan_bytes": 500,
        "dry_run": False,
        "grace_seconds": 86400.0,
    }
    assert main(["gc", *where, "--grace", "0"]) == 0
    assert "1.0 kB are freed" in capsys.readouterr().out
    assert stored_kinds(settings, blobs.database) == []


@pytest.mark.parametrize("given", ["-1", "a day", "nan", "inf"])
def test_what_is_no_time(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["gc", f"--grace={given}"])
    assert caught.value.code == 2
    assert f"0 or more, but got {given!r}" in capsys.readouterr().err


def test_a_store_that_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TINYFIT_ARTIFACT_URL", "magic://bucket")
    for command in (["gc"], ["worker"], ["serve", "--port", "0"]):
        assert main([*command, "--data-dir", str(tmp_path)]) == 2
        assert "unknown protocol 'magic'" in capsys.readouterr().err
