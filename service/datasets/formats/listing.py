"""A container's files as formats see them: images, and texts that may tell of them."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cached_property
from pathlib import PurePosixPath

from service.datasets.containers.container import Container
from service.datasets.layout import Split, split_of
from service.errors import DatasetError, TooLargeError
from tinytl.units import format_bytes

_TEXTS = frozenset(
    {".json", ".jsonl", ".ndjson", ".txt", ".csv", ".tsv", ".md", ".rst", ".xml", ".yaml"}
    | {".yml", ".html", ".htm", ".pdf", ".labels", ".names", ".log", ".py", ".ipynb", ".sh"}
    | {".bat", ".doc", ".docx", ".xls", ".xlsx", ".ini", ".cfg", ".conf", ".toml", ".db"}
    | {".eim", ".parquet", ".arrow", ".npy", ".npz", ".mat", ".pbtxt", ".lst", ".mp4", ".mov"}
    | {".avi", ".3gp", ".mkv", ".webm", ".m4v", ".wmv", ".mp3", ".wav", ".m4a", ".svg", ".psd"}
    | {".ai", ".eps", ".exe", ".dll", ".keep", ".gitkeep"}
)
"""What is none of a photo, by its name: left out, unless a format reads it."""
MAX_TEXT_BYTES = 64_000_000
_TASK_HASH = re.compile(r"[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""


class Listing:
    """What is in a container, and its texts on demand."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self.images = [path for path in container.paths if not _is_text(path)]
        self.texts = [path for path in container.paths if _is_text(path)]
        self.folders = [*container.folders, *map(parent, self.texts)]

    def text(self, path: str) -> str:
        """What the file says, without a byte order mark. Raises DatasetError."""
        num_bytes = self._container.num_bytes(path)
        if num_bytes > MAX_TEXT_BYTES:
            raise TooLargeError(
                f"{path!r} has {format_bytes(num_bytes)}; a list of labels may have at most "
                f"{format_bytes(MAX_TEXT_BYTES)}"
            )
        with self._container.open(path) as stream:
            data = stream.read(MAX_TEXT_BYTES + 1)
        try:
            if data.startswith((b"\xff\xfe", b"\xfe\xff")):
                return data.decode("utf-16")
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DatasetError(
                f"{path!r} is not in UTF-8 ({error.reason} at byte {error.start}); save it as "
                f"UTF-8, in Excel as 'CSV UTF-8'"
            ) from error

    def find(self, reference: str, folder: str, split: Split | None = None) -> str | None:
        """The image that a list in a folder means: by its path from there, or from the root; by
        its name alone, with or without its suffix, where just one image is called so, or one in
        a folder of the list's split."""
        path = reference.strip().replace("\\", "/")
        path = re.sub(r"^[a-z0-9]+://[^/]*/|\?.*$|^(\./)+", "", path, flags=re.IGNORECASE)
        path = path.lstrip("/")
        if not path:
            return None
        below = f"{folder}/{path}" if folder else path
        for whole in (below, path):
            if whole in self._whole:
                return whole
        return self._alone(path.rsplit("/", 1)[-1], folder, split)

    def _alone(self, name: str, folder: str, split: Split | None) -> str | None:
        names = [name, _TASK_HASH.sub("", name, count=1)] if _TASK_HASH.match(name) else [name]
        for table in (self._by_name, self._by_stem):
            for one in names:
                found = table.get(one, [])
                inside = [path for path in found if not folder or path.startswith(f"{folder}/")]
                of_split = [
                    path for path in found if split and split in map(split_of, path.split("/"))
                ]
                for candidates in (inside, found, of_split):
                    if len(candidates) == 1:
                        return candidates[0]
        return None

    @cached_property
    def _whole(self) -> frozenset[str]:
        return frozenset(self.images)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for path in self.images:
            found[path.rsplit("/", 1)[-1]].append(path)
        return found

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for path in self.images:
            found[PurePosixPath(path).stem].append(path)
        return found


def parent(path: str) -> str:
    """The folder of a path, empty for the root."""
    return path.rpartition("/")[0]


def _is_text(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return PurePosixPath(name.lower()).suffix in _TEXTS or name.upper() in ("README", "LICENSE")
