"""Is this file an image that can be trained on? Pillow decides, within limits."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from service.errors import DatasetError, TooLargeError
from service.settings import Settings

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_ARCHIVE_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh")
_SHOWN_AS = {"MPO": "JPEG"}
"""A JPEG with more behind it, as some cameras write; the first image counts."""
_DEEP_MODES = ("F", "I")
"""Numbers of 32 bits: where black and white are, nothing says."""
_DRAFT_SIZE = (32, 32)


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
    """Decode the image once and let it go; path names it in errors.

    The size in the header is checked before any pixel is decoded. JPEGs are decoded at an
    eighth of their size, which still reads them to the end.
    """
    if data.startswith(_ARCHIVE_MAGIC):
        raise DatasetError(f"{path!r} is an archive, not an image; unpack it first")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise TooLargeError(_too_many_pixels(path, str(error), settings)) from error
    except UnidentifiedImageError as error:
        raise DatasetError(
            f"{path!r} is not an image; accepted are {', '.join(FORMATS)}: remove it"
        ) from error
    except Exception as error:  # a hostile header can raise anything
        raise DatasetError(_damaged(path, error)) from error
    with image:
        width, height = image.size
        if width * height > settings.max_image_pixels:
            size = f"it has {width} x {height} pixels"
            raise TooLargeError(_too_many_pixels(path, size, settings))
        if image.mode in _DEEP_MODES:
            raise DatasetError(f"{path!r} has 32 bits a pixel; save it with 8 or 16")
        shown = _SHOWN_AS.get(image.format or "", image.format or "")
        facts = ImageFacts(format=shown, width=width, height=height)
        try:
            image.draft("RGB", _DRAFT_SIZE)
            image.load()
        except Exception as error:  # so can a hostile body
            raise DatasetError(_damaged(path, error)) from error
    return facts


def _too_many_pixels(path: str, found: str, settings: Settings) -> str:
    return (
        f"{path!r} is too large: {found}; at most {settings.max_image_pixels} pixels are "
        f"accepted: make it smaller"
    )


def _damaged(path: str, error: Exception) -> str:
    return f"{path!r} is damaged and can't be decoded ({error}); replace or remove it"
