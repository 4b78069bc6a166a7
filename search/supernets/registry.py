"""Where supernets come from: official ones (fetched, checked), bundled ones, those of other
packages, a user's file."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import httpx

from search.errors import SpaceError, SupernetError
from search.space.architecture import SupernetSpec
from search.supernets.packages import PACKAGES, weights_of

OFFICIAL_URL = "https://raw.githubusercontent.com/han-cai/files/master/ofa/ofa_nets"
OFFICIAL_BLOB_IDS = {
    "ofa_proxyless_d234_e346_k357_w1.3": "c97035a7a6fe611508f3bb35ffac0ef77262f5e0",
    "ofa_mbv3_d234_e346_k357_w1.0": "55d835981d8acd1053657a951b18887a724ddcbf",
    "ofa_mbv3_d234_e346_k357_w1.2": "d75a3613bae216091f61fc4b7df77d49cc82ed32",
}
"""Git blob ids: SHA-1 of `blob <size>\\0` and the content."""

DEFAULT_SUPERNET = "ofa_proxyless_d234_e346_k357_w0.35_tinyimagenet"
"""The narrowest that is bundled, for any device."""

Source = Literal["official", "bundled", "package", "file"]

_BUNDLED_DIRECTORY = Path(__file__).parent
_SUFFIXES = (".safetensors", ".pth.tar", ".pth", ".pt")
"""Of users' files; as official ones, they may have none, too."""
_MAX_DOWNLOAD_BYTES = 500_000_000
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_PART = ".part"
_ABANDONED_SECONDS = 3600
"""Nothing was written for that long, where a download would have failed after _TIMEOUT."""


@dataclass(frozen=True, kw_only=True)
class SupernetInfo:
    """A supernet that can be named. bytes is None for an official one not yet fetched."""

    id: str
    source: Source
    bytes: int | None
    cached: bool


@dataclass(frozen=True, kw_only=True)
class SupernetFile:
    """A supernet's weights on this machine, checked by id where it is official."""

    spec: SupernetSpec
    source: Source
    path: Path


def list_supernets(cache_dir: Path) -> list[SupernetInfo]:
    """Bundled and official supernets, those of installed packages, and files that a user laid into
    cache_dir."""
    infos = [
        SupernetInfo(id=path.stem, source="bundled", bytes=path.stat().st_size, cached=True)
        for path in sorted(_BUNDLED_DIRECTORY.glob("*.safetensors"))
    ]
    for supernet_id, package in PACKAGES.items():
        if _bundled_path(supernet_id) is None and package.path is not None:
            num_bytes = package.path.stat().st_size
            infos.append(
                SupernetInfo(id=supernet_id, source="package", bytes=num_bytes, cached=True)
            )
    for supernet_id in OFFICIAL_BLOB_IDS:
        path = cache_dir / supernet_id
        cached = path.is_file()
        infos.append(
            SupernetInfo(
                id=supernet_id,
                source="official",
                bytes=path.stat().st_size if cached else None,
                cached=cached,
            )
        )
    if cache_dir.is_dir():
        for path in sorted(cache_dir.iterdir()):
            if _is_supernet(path) and path.name not in OFFICIAL_BLOB_IDS:
                infos.append(
                    SupernetInfo(
                        id=str(path), source="file", bytes=path.stat().st_size, cached=True
                    )
                )
    return infos


def bundled_supernets() -> list[SupernetSpec]:
    """Those that come with this package, the narrowest first."""
    specs = [SupernetSpec.parse(path.stem) for path in _BUNDLED_DIRECTORY.glob("*.safetensors")]
    return sorted(specs, key=lambda spec: (spec.width, spec.id))


def parse_supernet(name_or_path: str | Path) -> SupernetSpec:
    """The architecture that a name or path stands for; nothing is fetched.

    Raises SupernetError for an unknown name, a missing file, or a file that names none.
    """
    name = str(name_or_path)
    if name in OFFICIAL_BLOB_IDS or _bundled_path(name) is not None:
        return SupernetSpec.parse(name)
    if name in PACKAGES:
        weights_of(name)
        return SupernetSpec.parse(name)
    path = Path(name_or_path)
    if _is_supernet(path) or (path.is_file() and card_path(path).is_file()):
        return _spec_of_file(path)
    if path.name.endswith(_SUFFIXES):
        raise SupernetError(f"supernet file {name!r} does not exist")
    bundled = [p.stem for p in _BUNDLED_DIRECTORY.glob("*.safetensors")]
    known = [*OFFICIAL_BLOB_IDS, *dict.fromkeys([*bundled, *PACKAGES])]
    raise SupernetError(
        f"unknown supernet {name!r}; it must be one of {known} or the path of a file, with or "
        f"without one of the suffixes {', '.join(_SUFFIXES)}"
    )


def locate(
    name_or_path: str | Path, cache_dir: Path, *, base_url: str = OFFICIAL_URL
) -> SupernetFile:
    """The weights of a supernet on this machine; an official one is fetched if need be."""
    spec = parse_supernet(name_or_path)
    name = str(name_or_path)
    if name in OFFICIAL_BLOB_IDS:
        path = fetch(name, cache_dir, base_url=base_url)
        return SupernetFile(spec=spec, source="official", path=path)
    bundled = _bundled_path(name)
    if bundled is not None:
        return SupernetFile(spec=spec, source="bundled", path=bundled)
    if name in PACKAGES:
        return SupernetFile(spec=spec, source="package", path=weights_of(name))
    return SupernetFile(spec=spec, source="file", path=Path(name_or_path))


def fetch(supernet_id: str, cache_dir: Path, *, base_url: str = OFFICIAL_URL) -> Path:
    """Path of an official supernet in cache_dir, downloaded on first use.

    The content is checked by its git blob id before it gets its name, and again at every use.
    Raises SupernetError, leaving nothing behind, where it can't be had or is another.
    """
    try:
        expected_id = OFFICIAL_BLOB_IDS[supernet_id]
    except KeyError as error:
        raise SupernetError(
            f"official supernet must be one of {list(OFFICIAL_BLOB_IDS)} but got {supernet_id!r}"
        ) from error
    path = cache_dir / supernet_id
    if path.is_file() and git_blob_id(path) == expected_id:
        return path
    url = f"{base_url.rstrip('/')}/{supernet_id}"
    try:
        with _new_file(path) as file:
            _download(url, file, path)
            file.flush()
            found_id = git_blob_id(Path(file.name))
            if found_id != expected_id:
                num_bytes = Path(file.name).stat().st_size
                raise SupernetError(
                    f"{url} is not the published file: its {num_bytes} bytes have git blob id "
                    f"{found_id}, not {expected_id}; it may be cut off or altered, try again"
                )
    except OSError as error:
        raise SupernetError(f"supernet cache {cache_dir} can't be written: {error}") from error
    return path


def git_blob_id(path: Path) -> str:
    """The id that git gives to this file's content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _bundled_path(name: str) -> Path | None:
    path = _BUNDLED_DIRECTORY / f"{name}.safetensors"
    return path if path.parent == _BUNDLED_DIRECTORY and path.is_file() else None


def _spec_of_file(path: Path) -> SupernetSpec:
    name, its_card = _name_of(path), card_path(path)
    if not its_card.is_file():
        try:
            return SupernetSpec.parse(name)
        except SpaceError as error:
            raise SupernetError(
                f"{error}. Rename the file, or lay a card {its_card.name} beside it: "
                f'{{"architecture": "ofa_proxyless_d234_e346_k357_w1.3"}}'
            ) from error
    try:
        card = json.loads(its_card.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SupernetError(f"supernet card {its_card} can't be read: {error}") from error
    architecture = card.get("architecture") if isinstance(card, dict) else None
    if not isinstance(architecture, str):
        raise SupernetError(
            f"supernet card {its_card} must name its architecture as text, got {architecture!r}"
        )
    try:
        return SupernetSpec.parse(architecture)
    except SpaceError as error:
        raise SupernetError(f"supernet card {its_card}: {error}") from error


def _name_of(path: Path) -> str:
    """A file's name without its suffix: ids have dots of their own."""
    suffix = next((suffix for suffix in _SUFFIXES if path.name.endswith(suffix)), "")
    return path.name.removesuffix(suffix)


def card_path(path: Path) -> Path:
    """Where the card of a supernet's file lies, if it has one."""
    return path.with_name(f"{_name_of(path)}.json")


def _is_supernet(path: Path) -> bool:
    """Whether a file is taken for a supernet's: by its suffix or, where it has none, its name."""
    if path.name.endswith(_SUFFIXES):
        return path.is_file()
    try:
        SupernetSpec.parse(path.name)
    except SpaceError:
        return False
    return path.is_file()


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name only if the block ends without an error, else is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART)
    os.close(handle)
    try:
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _remove_abandoned(directory: Path) -> None:
    """Parts that were left behind by processes that were killed."""
    for part in directory.glob(f".*{_PART}"):
        with suppress(FileNotFoundError):  # another process does the same
            if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                part.unlink()


def _download(url: str, file: BinaryIO, path: Path) -> None:
    """path: where the file may lie, too, had it been fetched elsewhere."""
    elsewhere = f"or fetch it elsewhere and lay it at {path}"
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=_TIMEOUT) as response:
            response.raise_for_status()
            num_bytes = 0
            for chunk in response.iter_bytes(1 << 16):
                num_bytes += len(chunk)
                if num_bytes > _MAX_DOWNLOAD_BYTES:
                    raise SupernetError(f"{url} sends more than {_MAX_DOWNLOAD_BYTES} bytes")
                file.write(chunk)
    except httpx.HTTPStatusError as error:
        raise SupernetError(
            f"{url} answered {error.response.status_code}; try again, {elsewhere}"
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise SupernetError(
            f"{url} could not be fetched: {reason}; connect this machine to the network, "
            f"{elsewhere}, or use a bundled supernet, such as {DEFAULT_SUPERNET}"
        ) from error
