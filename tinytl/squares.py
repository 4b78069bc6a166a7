"""How a picture becomes a square of pixels: all that changes what a network sees. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import ExifTags, Image, ImageOps

from tinytl.errors import DataError

Fit = Literal["crop", "pad", "squash"]
"""What becomes of a picture that is no square: its centre square is kept, or the whole picture on
a ground, or the whole picture out of proportion."""
FITS: tuple[Fit, ...] = get_args(Fit)

Transparency = Literal["composited", "dropped"]
"""Laid on a ground; or, as before there was a choice, whatever colour lies below it is shown."""

_PADDING = (124, 116, 104)
"""The mean colour of the supernets' pretraining: about zero, once normalized."""
_WHITE, _BLACK = (255, 255, 255, 255), (0, 0, 0, 255)
_SAMPLE = (64, 64)
_FAINT = 24.0
"""What is on average no darker than this on white, of 255, would hardly be seen there."""
_UNDECODABLE = (
    OSError,
    ValueError,
    SyntaxError,
    NotImplementedError,
    Image.DecompressionBombError,
)
_TURNS: dict[Any, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets an image of such an Exif orientation upright."""


@dataclass(frozen=True, kw_only=True)
class Squaring:
    """How pictures become squares. Raises DataError for what it does not know."""

    fit: Fit = "crop"
    transparency: Transparency = "composited"

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise DataError(f"fit must be one of {', '.join(FITS)} but got {self.fit!r}")
        if self.transparency not in get_args(Transparency):
            raise DataError(
                f"transparency must be one of {', '.join(get_args(Transparency))} but got "
                f"{self.transparency!r}"
            )

    @classmethod
    def recorded(cls, found: Mapping[str, Any]) -> Squaring:
        """As a store or bundle says; those from before there was a choice say nothing."""
        return cls(fit=found.get("fit", "crop"), transparency=found.get("transparency", "dropped"))


@cache
def can_read_heif() -> bool:
    """Whether HEIC photos can be read: pillow-heif is an extra, and makes Pillow read them."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
        return True
    return False


def load_image(path: Path, image_size: int, squaring: Squaring | None = None) -> np.ndarray:
    """Decode one image file to its square: uint8 (3, image_size, image_size).

    Raises DataError quoting the file.
    """
    can_read_heif()
    try:
        with Image.open(path) as image:
            draft(image, image_size)
            return to_square(image, image_size, squaring)
    except _UNDECODABLE as error:
        raise DataError(f"can't decode image {path.name!r}: {error}") from error


def draft(image: Image.Image, image_size: int) -> None:
    """Let a JPEG be decoded at a scale that is enough for a square of image_size."""
    image.draft("RGB", (2 * image_size, 2 * image_size))


def to_square(image: Image.Image, image_size: int, squaring: Squaring | None = None) -> np.ndarray:
    """Upright RGB square of an image: uint8 (3, image_size, image_size).

    Raises DataError for pixels of 32 bits: where black and white are, nothing says.
    """
    square = square_image(image, image_size, squaring or Squaring())
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def square_image(image: Image.Image, image_size: int, squaring: Squaring) -> Image.Image:
    """The same as a picture."""
    if is_too_deep(image):
        raise DataError("it has 32 bits a pixel; save it with 8 or 16")
    image = _visible(_eight_bits(_upright(image)), squaring.transparency)
    size = (image_size, image_size)
    if squaring.fit == "squash":
        return image.resize(size, Image.Resampling.BICUBIC)
    if squaring.fit == "pad":
        return _padded(image, image_size)
    return ImageOps.fit(image, size, Image.Resampling.BICUBIC)


def _padded(image: Image.Image, side: int) -> Image.Image:
    """All of a picture in the middle of a square; a line stays a pixel wide."""
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    square = Image.new("RGB", (side, side), _PADDING)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    square.paste(resized, ((side - width) // 2, (side - height) // 2))
    return square


def is_too_deep(image: Image.Image) -> bool:
    """Whether a pixel is a number of which nothing says where black and white are. A 16-bit PGM
    is opened with 32 bits, too, but its format says."""
    return image.mode == "F" or (image.mode == "I" and image.format != "PPM")


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says, or as it is where that can't be read."""
    image.load()  # pixels that are damaged are not passed over
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged metadata can raise anything
        return image
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Greyscale of 16 bits keeps the high byte."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))


def _visible(image: Image.Image, transparency: Transparency) -> Image.Image:
    """RGB. What is transparent is laid on white, as paper is; on black where all that is not
    transparent is white itself."""
    if transparency == "dropped" or not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    sample = np.asarray(image.resize(_SAMPLE, Image.Resampling.BOX), dtype=np.float64)
    alpha, darkness = sample[..., 3], 255 - sample[..., :3].mean(-1)
    is_faint = (alpha * darkness).sum() < _FAINT * alpha.sum()
    ground = Image.new("RGBA", image.size, _BLACK if is_faint else _WHITE)
    return Image.alpha_composite(ground, image).convert("RGB")
