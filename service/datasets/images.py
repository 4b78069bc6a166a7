"""Is this file an image that can be trained on? Pillow decides, within limits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import Image, UnidentifiedImageError

from service.errors import DatasetError, TooLargeError
from service.settings import Settings
from tinytl.squares import can_read_heif, draft, is_too_deep

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF")
_ARCHIVE_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh")
_SHOWN_AS = {"MPO": "JPEG", "HEIF": "HEIC"}
"""An MPO is a JPEG with more behind it, as some cameras write; the first image counts."""
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
_RAW = frozenset({".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw"})
_SMALL_SIDE = 16


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What an image's header says. Sizes are in pixels, as stored, before any turning upright."""

    format: str
    width: int
    height: int

    @property
    def num_pixels(self) -> int:
        return self.width * self.height


def check_image(data: bytes, path: str, settings: Settings) -> ImageFacts:
    """Decode the image once and let it go; path names it in errors."""
    with opened_image(data, path, settings, side=_SMALL_SIDE) as (facts, _):
        return facts


@contextmanager
def opened_image(
    data: bytes, path: str, settings: Settings, *, side: int
) -> Iterator[tuple[ImageFacts, Image.Image]]:
    """The image, decoded to its end, a JPEG at a scale that is enough for squares of that side.

    The size in the header is checked before any pixel is decoded. Raises DatasetError, also for
    what goes wrong with the image while it is open: hostile headers and bodies raise anything.
    """
    if data.startswith(_ARCHIVE_MAGIC):
        raise DatasetError(f"{path!r} is an archive, not an image; unpack it first")
    can_read_heif()
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
    except Image.DecompressionBombError as error:
        raise TooLargeError(_too_many_pixels(path, str(error), settings)) from error
    except UnidentifiedImageError as error:
        raise DatasetError(_no_image(data, path)) from error
    except Exception as error:
        raise DatasetError(_damaged(path, error)) from error
    with image:
        width, height = image.size
        if width * height > settings.max_image_pixels:
            size = f"it has {width} x {height} pixels"
            raise TooLargeError(_too_many_pixels(path, size, settings))
        if is_too_deep(image):
            raise DatasetError(f"{path!r} has 32 bits a pixel; save it with 8 or 16")
        shown = _SHOWN_AS.get(image.format or "", image.format or "")
        try:
            draft(image, side)
            image.load()
            yield ImageFacts(format=shown, width=width, height=height), image
        except Exception as error:
            raise DatasetError(_damaged(path, error)) from error


def _formats() -> tuple[str, ...]:
    return _FORMATS if can_read_heif() else _FORMATS[:-1]


def _no_image(data: bytes, path: str) -> str:
    """What the file is instead, and what to do."""
    suffix = PurePosixPath(path.lower()).suffix
    start = data[:512].lstrip().lower()
    if not data:
        return f"{path!r} is not an image: it is empty; copy it again, or remove it"
    if data[4:8] == b"ftyp":
        if data[8:12] in _HEIF_BRANDS and can_read_heif():
            return f"{path!r} is a HEIC photo that is damaged; copy it again, or remove it"
        if data[8:12] in _HEIF_BRANDS:
            return (
                f"{path!r} is a HEIC photo, which needs pillow-heif here: pip install "
                f"'tinyfit[heic]', or convert it to JPEG (an iPhone takes JPEGs with Settings, "
                f"Camera, Formats, Most Compatible)"
            )
        return f"{path!r} is not an image but a video; save pictures of it as JPEG, or remove it"
    if suffix in _RAW:
        return f"{path!r} is not an image that can be read but a camera's raw file; export a JPEG"
    if start.startswith((b"<!doctype html", b"<html")):
        return f"{path!r} is not an image but a web page: its download failed; download it again"
    if b"<svg" in start:
        return f"{path!r} is not an image of pixels but a drawing (SVG); export a PNG"
    return (
        f"{path!r} is not an image; accepted are {', '.join(map(_shown, _formats()))}: convert "
        f"it to JPEG or PNG where it is a picture, or remove it"
    )


def _shown(name: str) -> str:
    return {"PPM": "PPM and PGM", "JPEG2000": "JPEG 2000", "HEIF": "HEIC"}.get(name, name)


def _too_many_pixels(path: str, found: str, settings: Settings) -> str:
    return (
        f"{path!r} is too large: {found}; at most {settings.max_image_pixels} pixels are "
        f"accepted: make it smaller"
    )


def _damaged(path: str, error: Exception) -> str:
    return f"{path!r} is damaged and can't be decoded ({error}); replace or remove it"
