"""What images look like as squares: whether some are blank, most of a class the same; and the
contact sheet, which shows a few of each class as training will see them."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from service.datasets.layout import Placed
from service.datasets.words import counted
from tinytl.squares import FITS, Fit, Squaring, square_image

TILE = 72
"""Side of the squares looked at, in pixels."""
COLUMNS = 6
"""Images of a class on the sheet."""
MAX_ROWS = 24
"""Classes on the sheet."""
_QUALITY = 80
_BLANK_DEVIATION, _BLANK_RANGE = 2.0, 24
"""Below both, in steps of 255, nothing is to be seen."""
_GLANCE = (16, 16)
_SAME_MEAN, _SAME_MOST = 1.0, 12
"""How far images that are the same at a glance differ, on average and at most."""
_MAX_KINDS = 8
"""Images of a class that others are compared with."""
_MOST = 0.5
"""Share of a class's images above which something is said."""


class Looks:
    """Takes a dataset's images one by one, in the order of its layout."""

    def __init__(self, files: Sequence[Placed]) -> None:
        self._num_images = Counter(file.class_name for file in files)
        self._seen: Counter[str] = Counter()
        self._blank: dict[str, list[str]] = defaultdict(list)
        self._num_transparent = 0
        self._kinds: dict[str, list[tuple[np.ndarray, list[str]]]] = defaultdict(list)
        self._shown = sorted(self._num_images)[:MAX_ROWS]
        self._tiles: dict[str, list[dict[Fit, Image.Image]]] = {name: [] for name in self._shown}

    def add(self, placed: Placed, image: Image.Image) -> None:
        name = placed.class_name
        self._num_transparent += _is_transparent(image)
        square = square_image(image, TILE, Squaring(fit="squash"))  # all of the picture
        pixels = np.asarray(square, dtype=np.float32)
        if pixels.std() < _BLANK_DEVIATION and np.ptp(pixels) < _BLANK_RANGE:
            self._blank[name].append(placed.path)
        self._add_kind(placed, square)
        if self._is_shown(name):
            tiles = {fit: square_image(image, TILE, Squaring(fit=fit)) for fit in FITS}
            self._tiles[name].append(tiles)
        self._seen[name] += 1

    def notes(self) -> list[str]:
        """What would ruin a training."""
        notes = []
        if self._num_transparent:
            notes.append(
                f"{counted('image', self._num_transparent)} with transparent parts: they are laid "
                f"on white, or on black where they would not be seen on white."
            )
        blank = [path for paths in self._blank.values() for path in paths]
        if blank:
            notes.append(
                f"{counted('image', len(blank))} {'is' if len(blank) == 1 else 'are'} of one "
                f"colour all over, such as {blank[0]!r}: nothing can be learned from that; look "
                f"at the contact sheet, and replace or remove them."
            )
        for name, kinds in sorted(self._kinds.items()):
            _, alike = max(kinds, key=lambda kind: len(kind[1]))
            if len(alike) > max(1, _MOST * self._seen[name]) and not self._is_blank(name):
                notes.append(
                    f"{len(alike)} of {counted('image', self._seen[name])} of class {name!r} look "
                    f"the same as {alike[0]!r}: the model will know that one picture; add others, "
                    f"or look whether the files are what they should be."
                )
        return notes

    def sheet(self, fit: Fit) -> bytes:
        """A JPEG of squares without names: a class a row, in the order of `rows`."""
        sheet = Image.new("RGB", (COLUMNS * TILE, max(1, len(self._shown)) * TILE), "white")
        for row, name in enumerate(self._shown):
            for column, tiles in enumerate(self._tiles[name]):
                sheet.paste(tiles[fit], (column * TILE, row * TILE))
        stream = io.BytesIO()
        sheet.save(stream, "JPEG", quality=_QUALITY)
        return stream.getvalue()

    @property
    def rows(self) -> Mapping[str, int]:
        """The classes on the sheet, and how many images each shows."""
        return {name: len(tiles) for name, tiles in self._tiles.items()}

    def _is_shown(self, name: str) -> bool:
        """Whether the next image of the class is one of those that are spread over all of it."""
        if name not in self._tiles or len(self._tiles[name]) == COLUMNS:
            return False
        return self._seen[name] >= len(self._tiles[name]) * self._num_images[name] // COLUMNS

    def _is_blank(self, name: str) -> bool:
        return len(self._blank[name]) > _MOST * self._seen[name]

    def _add_kind(self, placed: Placed, square: Image.Image) -> None:
        glance = np.asarray(square.resize(_GLANCE, Image.Resampling.BOX), dtype=np.int16)
        kinds = self._kinds[placed.class_name]
        for other, paths in kinds:
            difference = np.abs(glance - other)
            if difference.mean() < _SAME_MEAN and difference.max() < _SAME_MOST:
                paths.append(placed.path)
                return
        if len(kinds) < _MAX_KINDS:
            kinds.append((glance, [placed.path]))


def _is_transparent(image: Image.Image) -> bool:
    """Whether something is to be seen through."""
    if not image.has_transparency_data:
        return False
    return bool(np.asarray(image.convert("RGBA").getchannel("A")).min() < 255)
