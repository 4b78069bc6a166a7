"""Images as a device stores them: resized once, uint8, memory-mapped, augmented on the fly."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tinytl.errors import CancelledError, DataError
from tinytl.squares import Squaring, load_image, to_square

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

_FORMAT_VERSION = 1
_ASPECT_RATIO = 4 / 3


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One labelled image file; label indexes the classes."""

    path: Path
    label: int
    split: Split


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random crop of at least min_crop_scale of the area, and a mirror image half of the time."""

    min_crop_scale: float = 0.5
    horizontal_flip: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.min_crop_scale <= 1:
            raise DataError(
                f"min_crop_scale must be above 0 and at most 1 but got {self.min_crop_scale}"
            )


def split_samples(
    samples: Sequence[Sample], *, seed: int, val_fraction: float = 0.2, test_fraction: float = 0.2
) -> list[Sample]:
    """Fill a missing test split, then a missing val split, from train: per class, seeded.

    At least one image of a class moves and at least one stays. Raises DataError for a class
    with too few training images.
    """
    filled = list(samples)
    fractions: tuple[tuple[Split, float], ...] = (("test", test_fraction), ("val", val_fraction))
    for number, (split, fraction) in enumerate(fractions):
        if any(sample.split == split for sample in filled):
            continue
        by_class: dict[int, list[int]] = defaultdict(list)
        for index in sorted(range(len(filled)), key=lambda i: str(filled[i].path)):
            if filled[index].split == "train":
                by_class[filled[index].label].append(index)
        for label, indices in sorted(by_class.items()):
            if len(indices) < 2:
                raise DataError(
                    f"class number {label} has {len(indices)} training images left, too few to "
                    f"hold some out for {split}: add images"
                )
            order = np.random.default_rng([seed, number, label]).permutation(len(indices))
            num_moved = min(max(1, round(fraction * len(indices))), len(indices) - 1)
            for position in order[:num_moved]:
                index = indices[position]
                filled[index] = replace(filled[index], split=split)
    return filled


def evaluation_view(
    image: Image.Image | Path, image_size: int, resolution: int, squaring: Squaring | None = None
) -> Tensor:
    """What ImageSplit.batch has of an image, or of a file, that ingest has stored at image_size:
    uint8 (3, resolution, resolution)."""
    if isinstance(image, Path):
        square = load_image(image, image_size, squaring)
    else:
        square = to_square(image, image_size, squaring)
    return _resize(torch.from_numpy(square), resolution)


def ingest(
    samples: Sequence[Sample],
    classes: Sequence[str],
    directory: Path,
    *,
    image_size: int,
    splits: Sequence[Split] = SPLITS,
    squaring: Squaring | None = None,
    decode: Callable[[Path, int, Squaring], np.ndarray] = load_image,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Decode every sample once into directory, which appears only when it is complete.

    splits must not be empty. decode(path, image_size, squaring) is uint8
    (3, image_size, image_size). An existing directory is replaced. Raises DataError for an
    undecodable image or an empty split, CancelledError where should_stop asks for it; then
    nothing is left behind.
    """
    squaring = squaring or Squaring()
    for split in splits:
        if not any(sample.split == split for sample in samples):
            raise DataError(f"the dataset has no images in its {split} split")
    ordered = sorted(samples, key=lambda s: (SPLITS.index(s.split), s.label, str(s.path)))
    partial = directory.with_name(f"{directory.name}.partial.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        images = np.lib.format.open_memmap(
            partial / "images.npy", "w+", np.uint8, (len(ordered), 3, image_size, image_size)
        )
        for index, sample in enumerate(ordered):
            if should_stop():
                raise CancelledError("ingest was cancelled")
            images[index] = decode(sample.path, image_size, squaring)
            on_progress(index + 1, len(ordered))
        images.flush()
        del images
        _write_meta(partial, ordered, classes, image_size, squaring)
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_meta(
    directory: Path,
    ordered: Sequence[Sample],
    classes: Sequence[str],
    image_size: int,
    squaring: Squaring,
) -> None:
    np.save(directory / "labels.npy", np.array([s.label for s in ordered], dtype=np.int64))
    meta = {
        "format_version": _FORMAT_VERSION,
        "classes": list(classes),
        "image_size": image_size,
        **asdict(squaring),
        "counts": {split: sum(s.split == split for s in ordered) for split in SPLITS},
    }
    (directory / "meta.json").write_text(json.dumps(meta, indent=1))


class ImageSplit:
    """The images of one split; they stay on disk until they are asked for."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        # memory-mapped or not, it pickles as an array
        self._parts: tuple[np.ndarray, ...] = (images.view(np.ndarray),)
        self.labels = labels.view(np.ndarray)

    def followed_by(self, other: ImageSplit) -> ImageSplit:
        """The images of both, where they are."""
        both = ImageSplit(self._parts[0], np.concatenate((self.labels, other.labels)))
        both._parts = self._parts + other._parts
        return both

    def __len__(self) -> int:
        return len(self.labels)

    def labels_of(self, indices: Sequence[int]) -> Tensor:
        """Labels, int64 (N,), of the images of these indices."""
        return torch.from_numpy(self.labels[list(indices)].astype(np.int64))

    def sha256(self) -> str:
        """Names its images and labels, all of which are read."""
        digest = hashlib.sha256(self.labels.tobytes())
        for part in self._parts:
            for image in part:
                digest.update(image.tobytes())
        return digest.hexdigest()

    def all_images(self) -> Tensor:
        """uint8 (N, 3, side, side), still memory-mapped; to be read only."""
        (images,) = self._parts
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.from_numpy(images)

    def batch(self, indices: Sequence[int], resolution: int) -> Tensor:
        """Evaluation view: whole images, uint8 (N, 3, resolution, resolution)."""
        batch = torch.empty(len(indices), 3, resolution, resolution, dtype=torch.uint8)
        for position, index in enumerate(indices):
            batch[position] = _resize(self._read(index), resolution)
        return batch

    def augmented_batch(
        self,
        indices: Sequence[int],
        resolution: int,
        augmentation: Augmentation,
        seed: Sequence[int],
    ) -> Tensor:
        """Training view, uint8: each image's crop and flip depend on (seed, its index) alone."""
        batch = torch.empty(len(indices), 3, resolution, resolution, dtype=torch.uint8)
        for position, index in enumerate(indices):
            rng = np.random.default_rng([*seed, index])
            image = _random_crop(self._read(index), augmentation.min_crop_scale, rng)
            image = _resize(image, resolution)
            flips = augmentation.horizontal_flip and rng.random() < 0.5
            batch[position] = image.flip(2) if flips else image
        return batch

    def _read(self, index: int) -> Tensor:
        image = torch.empty(self._parts[0].shape[1:], dtype=torch.uint8)
        for part in self._parts:
            if index < len(part):
                image.numpy()[...] = part[index]
                break
            index -= len(part)
        return image


def _random_crop(image: Tensor, min_scale: float, rng: np.random.Generator) -> Tensor:
    side = image.shape[-1]
    area = rng.uniform(min_scale, 1) * side**2
    aspect = np.exp(rng.uniform(-np.log(_ASPECT_RATIO), np.log(_ASPECT_RATIO)))
    width = max(1, min(side, round(float(np.sqrt(area * aspect)))))
    height = max(1, min(side, round(float(np.sqrt(area / aspect)))))
    top = int(rng.integers(side - height + 1))
    left = int(rng.integers(side - width + 1))
    return image[:, top : top + height, left : left + width]


def _resize(image: Tensor, resolution: int) -> Tensor:
    if image.shape[1:] == (resolution, resolution):
        return image
    size = (resolution, resolution)
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


class ImageStore:
    """An ingested dataset: uint8 squares of image_size pixels, in three splits."""

    def __init__(
        self,
        splits: dict[Split, ImageSplit],
        classes: Sequence[str],
        image_size: int,
        squaring: Squaring | None = None,
    ) -> None:
        self._splits = splits
        self.directory: Path | None = None
        """Where it was opened."""
        self.classes = tuple(classes)
        self.image_size = image_size
        self.squaring = squaring or Squaring()
        """How its images became squares."""

    @classmethod
    def open(cls, directory: Path) -> ImageStore:
        """Open what ingest left in directory. Raises DataError where that is something else."""
        try:
            meta = json.loads((directory / "meta.json").read_text())
            if meta["format_version"] != _FORMAT_VERSION:
                raise DataError(f"image store has format version {meta['format_version']!r}")
            images = np.load(directory / "images.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(directory / "labels.npy", mmap_mode="r", allow_pickle=False)
            splits: dict[Split, ImageSplit] = {}
            start = 0
            for split in SPLITS:
                stop = start + meta["counts"][split]
                splits[split] = ImageSplit(images[start:stop], labels[start:stop])
                start = stop
            store = cls(splits, meta["classes"], meta["image_size"], Squaring.recorded(meta))
            store.directory = directory
            return store
        except (OSError, KeyError, TypeError, ValueError, EOFError, RecursionError) as error:
            raise DataError(f"{directory} is no image store: {error}") from error

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def split(self, name: Split) -> ImageSplit:
        return self._splits[name]
