"""The page's files: served safely, from here alone, and the libraries among them as recorded."""

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.dashboard import vendor
from service.record.db.database import Database
from service.settings import Settings

STATIC = Path(vendor.__file__).with_name("static")
OWN = [
    path
    for path in STATIC.rglob("*")
    if path.suffix in (".js", ".css", ".html", ".svg") and "vendor" not in path.parts
]


@pytest.fixture
def client(settings: Settings, database: Database) -> TestClient:
    return TestClient(create_app(settings), base_url="http://localhost")


def test_the_page_loads_nothing_from_elsewhere_and_nothing_inline(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script>|<style|\sstyle=|\son\w+=", answer.text)
    for path in OWN:
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", path.read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path


def test_every_file_is_served_with_its_type_and_not_twice(client: TestClient) -> None:
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    for path in OWN:
        if path.suffix not in types:
            continue
        url = f"/static/{path.relative_to(STATIC).as_posix()}"
        first = client.get(url)
        assert first.headers["Content-Type"].startswith(types[path.suffix]), url
        assert first.headers["X-Content-Type-Options"] == "nosniff"
        again = client.get(url, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert client.head("/").status_code == 200
    assert client.get("/static/../page.py").status_code == 404
    assert client.get("/static/none.js").status_code == 404


def test_what_modules_import_is_there() -> None:
    imported = 0
    for path in STATIC.rglob("*.js"):
        for found in re.findall(r"(?:from|import)\s*\"(\.[^\"]+)\"", path.read_text()):
            assert (path.parent / found).is_file(), (path, found)
            imported += 1
    assert imported > 50


def test_every_library_is_recorded_with_its_licence() -> None:
    wanted = json.loads(vendor.LIST.read_text())
    recorded = {name for library in wanted.values() for name in library["files"].values()}
    assert recorded == {path.name for path in vendor.FOLDER.iterdir()}
    for library in wanted.values():
        assert re.fullmatch(r"\d+\.\d+\.\d+", library["version"])
        assert library["integrity"].startswith("sha512-")
        assert any(name.endswith("LICENSE.txt") for name in library["files"].values())
    assert "4.6.1" in (vendor.FOLDER / "chart.js").read_text()[:200]


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_library_that_is_not_the_recorded_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_whole: bool
) -> None:
    """npm is a stand-in here: it lays a package of ours where the real one would."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "lib.js").write_text('import{h}from"preact";\n//# sourceMappingURL=lib.js.map\n')
    archive = tmp_path / "lib-1.0.0.tgz"
    with tarfile.open(archive, "w:gz") as files:
        files.add(package, "package")
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f'#!/bin/sh\nfor folder; do :; done\ncp {archive} "$folder"\n')
    npm.chmod(0o755)
    wanted = tmp_path / "vendor.json"
    integrity = vendor.integrity(archive) if is_whole else "sha512-of another"
    library = {"version": "1.0.0", "integrity": integrity, "files": {"lib.js": "lib.js"}}
    wanted.write_text(json.dumps({"lib": library}))
    monkeypatch.setenv("PATH", f"{npm.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(vendor, "LIST", wanted)
    monkeypatch.setattr(vendor, "FOLDER", tmp_path / "vendor")
    assert vendor.main() == (0 if is_whole else 1)
    served = tmp_path / "vendor" / "lib.js"
    assert served.exists() is is_whole
    if is_whole:
        assert served.read_text() == 'import{h}from"./preact.js";\n'


def test_a_wheel_has_the_page(tmp_path: Path) -> None:
    """By what setuptools would pack."""
    commands = ["--quiet", "egg_info", "--egg-base", str(tmp_path)]
    commands += ["build_py", "--build-lib", str(tmp_path / "packed")]
    packing = f"import setuptools; setuptools.setup(script_args={commands!r})"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", packing], cwd=root, capture_output=True, check=True)
    packed = tmp_path / "packed" / "service" / "dashboard" / "static"
    expected = {path.relative_to(STATIC) for path in STATIC.rglob("*") if path.is_file()}
    assert {path.relative_to(packed) for path in packed.rglob("*") if path.is_file()} == expected
