"""Where blobs' bytes lie: a folder, or an object store that fsspec reaches by a URL.

An object appears whole or not at all, and what is at a key never changes. fsspec is imported only
where the URL needs it.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from service.errors import InputError, StoreError, StoreUnavailableError

T = TypeVar("T")

_LOCAL = ("", "file", "local")
_PARTIAL = ".partial"
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES)
UNFINISHED_SECONDS = 3600.0
"""A file that nobody has written to for so long has lost its writer."""
_MAY_PASS = {
    *("aiohttp.ClientError", "botocore.ConnectionError", "botocore.HTTPClientError"),
    "botocore.ResponseParserError",
}
"""Errors of packages that are no OSError."""
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_RETRY_AFTER_SECONDS = 10
_S3_OPTIONS = {"connect_timeout": 10, "read_timeout": 60, "retries": {"total_max_attempts": 1}}
"""Of botocore; trying again is for its callers."""


class Objects(Protocol):
    """A store of objects. Each method raises StoreUnavailableError where the store does not
    answer and StoreError where it refuses."""

    url: str
    is_local: bool
    """Whether it is a folder of this machine's."""

    def put(self, source: Path, key: str) -> None:
        """Store a file, which is not changed any more afterwards, in place of what is there."""

    def write(self, key: str, data: bytes) -> None: ...

    def read(self, key: str, start: int, stop: int) -> bytes:
        """Bytes from start up to stop, or to the end. Raises FileNotFoundError."""

    def size(self, key: str) -> int | None:
        """None where there is no such object."""

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Every key, with its object's bytes."""

    def delete(self, keys: Iterable[str]) -> None:
        """Those that are not there are passed over."""

    def path(self, key: str) -> Path | None:
        """The object as a file, to be read only, where it is one of this machine."""

    def remove_unfinished(self) -> None:
        """Remove what writers left that were killed long ago."""


def open_objects(
    url: str, *, patience_seconds: float = 0.0, on_wait: Callable[[], None] = lambda: None
) -> Objects:
    """The store at a URL, or a folder. For patience_seconds one that does not answer is asked
    again; on_wait is called meanwhile, and with each read, and may raise. Raises InputError for
    what is neither."""
    protocol = url.split("://", 1)[0] if "://" in url else ""
    if protocol in _LOCAL:
        return Folder(Path(unquote(urlsplit(url).path) if protocol else url).expanduser())
    return _Remote(url, protocol, patience_seconds, on_wait)


class Folder:
    """Objects are files, and those of the same file system linked, not copied."""

    is_local = True

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self.url = str(self._directory)

    def put(self, source: Path, key: str) -> None:
        with self._written(key) as target:
            _sync(source)
            try:
                os.link(source, target)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                shutil.copyfile(source, target)
                _sync(target)

    def write(self, key: str, data: bytes) -> None:
        with self._written(key) as target:
            target.write_bytes(data)
            _sync(target)

    def read(self, key: str, start: int, stop: int) -> bytes:
        with (self._directory / key).open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def size(self, key: str) -> int | None:
        try:
            return (self._directory / key).stat().st_size
        except FileNotFoundError:
            return None

    def sizes(self) -> Iterator[tuple[str, int]]:
        for entry in self._entries():
            if not entry.name.endswith(_PARTIAL):
                with suppress(FileNotFoundError):
                    yield entry.name, entry.stat().st_size

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            (self._directory / key).unlink(missing_ok=True)

    def path(self, key: str) -> Path | None:
        return self._directory / key

    def remove_unfinished(self) -> None:
        for entry in self._entries():
            if entry.name.endswith(_PARTIAL):
                with suppress(FileNotFoundError):
                    if time.time() - entry.stat().st_ctime >= UNFINISHED_SECONDS:
                        os.unlink(entry)

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self._directory) as entries:
                yield from (entry for entry in entries if entry.is_file(follow_symlinks=False))
        except FileNotFoundError:
            return

    @contextmanager
    def _written(self, key: str) -> Iterator[Path]:
        """A path that becomes the object, read-only, once it is written and on disk."""
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{key}.{uuid.uuid4().hex}{_PARTIAL}"
        try:
            yield path
            path.chmod(0o444)
            path.replace(self._directory / key)
            _sync(self._directory)
        finally:
            path.unlink(missing_ok=True)  # it is still there where both were the same file


class _Remote:
    """An object store: a PUT makes an object, or the end of a multipart upload does."""

    is_local = False

    def __init__(
        self, url: str, protocol: str, patience_seconds: float, on_wait: Callable[[], None]
    ) -> None:
        self.url = url
        self._patience_seconds, self._on_wait = patience_seconds, on_wait
        self._files, self._root = _open_file_system(url, protocol)

    def put(self, source: Path, key: str) -> None:
        try:
            self._call(lambda: self._files.put_file(str(source), self._at(key)))
        except FileNotFoundError as error:
            raise StoreError(f"artifact store {self.url!r} does not exist: {error}") from error

    def write(self, key: str, data: bytes) -> None:
        try:
            self._call(lambda: self._files.pipe_file(self._at(key), data))
        except FileNotFoundError as error:
            raise StoreError(f"artifact store {self.url!r} does not exist: {error}") from error

    def read(self, key: str, start: int, stop: int) -> bytes:
        if start >= stop:
            return b""
        self._on_wait()  # a large object is read piece by piece, for long
        found = self._call(lambda: self._files.cat_file(self._at(key), start=start, end=stop))
        return bytes(found)

    def size(self, key: str) -> int | None:
        try:
            return int(self._call(lambda: self._files.info(self._at(key)))["size"])
        except FileNotFoundError:
            return None

    def sizes(self) -> Iterator[tuple[str, int]]:
        try:
            found = self._call(lambda: self._files.ls(self._root, detail=True))
        except FileNotFoundError:  # no object yet
            return
        for entry in found:
            if entry["type"] == "file":
                yield entry["name"].rsplit("/", 1)[-1], int(entry["size"])

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with suppress(FileNotFoundError):
                self._call(partial(self._files.rm_file, self._at(key)))

    def path(self, key: str) -> Path | None:
        return None

    def remove_unfinished(self) -> None:
        """Unfinished multipart uploads are no objects; a rule of the bucket's ends them."""

    def _at(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _call(self, operation: Callable[[], T]) -> T:
        deadline = time.monotonic() + self._patience_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return operation()
            except FileNotFoundError:
                raise
            except Exception as error:
                if not _may_pass(error):
                    raise StoreError(f"artifact store {self.url!r} refuses: {error}") from error
                if time.monotonic() >= deadline:
                    raise StoreUnavailableError(
                        f"artifact store {self.url!r} does not answer: {error}",
                        retry_after_seconds=_RETRY_AFTER_SECONDS,
                    ) from error
            self._on_wait()
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _open_file_system(url: str, protocol: str) -> tuple[Any, str]:
    import fsspec

    try:
        kind = fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        extra = "tinyfit[s3]" if protocol in ("s3", "s3a") else f"what it needs ({error})"
        raise InputError(
            f"artifact_url {url!r} needs a package that is not installed; run pip install "
            f"'{extra}'"
        ) from error
    except ValueError as error:
        raise InputError(
            f"artifact_url {url!r} has an unknown protocol {protocol!r}; use a folder or for "
            f"example s3://bucket/prefix"
        ) from error
    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol in ("s3", "s3a"):
        options["config_kwargs"] = _S3_OPTIONS
    try:
        root = str(kind._strip_protocol(url)).rstrip("/")
        files = kind(**options)
    except Exception as error:  # whatever a package makes of bad settings
        raise InputError(f"artifact_url {url!r} can't be used: {error}") from error
    if not root.strip("/"):
        raise InputError(
            f"artifact_url {url!r} names no bucket; use for example s3://bucket/prefix"
        )
    return files, root


def _may_pass(error: Exception) -> bool:
    """Whether it is for want of a connection or of a server that can: not a refusal.

    Packages raise errors of their own beside OSError; they are told by their bases' names, as
    importing them would cost those that don't use them.
    """
    if isinstance(error, PermissionError):
        return False
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).mro()}
    return isinstance(error, OSError) or bool(names & _MAY_PASS)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
