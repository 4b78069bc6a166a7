"""`make vendor`: fetches the libraries that the page is served with, in exactly the versions of
vendor.json, checks each package by its sha512, and lays its files into static/vendor.

Their source maps are not served, so the lines that point to them go; and browsers find a module
by its address, not by its package's name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

_HERE = Path(__file__).parent
LIST = _HERE / "vendor.json"
FOLDER = _HERE / "static" / "vendor"
_SOURCE_MAP = re.compile(r"\n?//# sourceMappingURL=\S+\s*$")


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for package, wanted in json.loads(LIST.read_text()).items():
        with tempfile.TemporaryDirectory(prefix="tinyfit-vendor-") as directory:
            archive = _fetch(f"{package}@{wanted['version']}", Path(directory))
            found = integrity(archive)
            if found != wanted["integrity"]:
                sys.stderr.write(f"{archive.name} is {found}, not {wanted['integrity']}\n")
                return 1
            with tarfile.open(archive) as files:
                for path, name in wanted["files"].items():
                    member = files.extractfile(f"package/{path}")
                    assert member is not None
                    (FOLDER / name).write_text(served(member.read().decode()), encoding="utf-8")
    return 0


def integrity(archive: Path) -> str:
    """A package's hash, as the npm registry writes it."""
    digest = hashlib.sha512(archive.read_bytes()).digest()
    return f"sha512-{base64.b64encode(digest).decode()}"


def served(text: str) -> str:
    """A file of a package as the page loads it."""
    return _SOURCE_MAP.sub("\n", text).replace('from"preact"', 'from"./preact.js"')


def _fetch(package: str, folder: Path) -> Path:
    subprocess.run(
        ["npm", "pack", package, "--silent", "--pack-destination", str(folder)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (archive,) = folder.glob("*.tgz")
    return archive


if __name__ == "__main__":
    sys.exit(main())
