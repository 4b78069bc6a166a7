import zipfile
from pathlib import Path

from service.datasets.packing import pack


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
