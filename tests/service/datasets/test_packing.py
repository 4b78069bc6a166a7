import os
import zipfile
from pathlib import Path

import pytest

from service.datasets.packing import pack
from service.errors import DatasetError


def test_a_folder_packs_to_the_same_bytes(tmp_path: Path) -> None:
    archives = []
    for order in ((1, 2), (2, 1)):
        folder = tmp_path / f"folder{order[0]}"
        for number in order:
            (folder / "cat").mkdir(parents=True, exist_ok=True)
            (folder / "cat" / f"{number}.png").write_bytes(b"%d" % number)
        archives.append(tmp_path / f"{order[0]}.zip")
        pack(folder, archives[-1])
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with zipfile.ZipFile(archives[0]) as archive:
        assert archive.namelist() == ["cat/1.png", "cat/2.png"]
        assert archive.read("cat/2.png") == b"2"


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "1.png").write_bytes(b"1")
    with pytest.raises(DatasetError, match="is not UTF-8; rename it"):
        pack(tmp_path, tmp_path / "images.zip")
