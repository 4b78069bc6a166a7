"""What is worth knowing about an upload: told in plain sentences, each with what would help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from PIL import Image

from service.datasets.fit import choose_fit, crop_loss
from service.datasets.images import ImageFacts
from service.datasets.layout import Layout, Placed, Split
from service.datasets.looks import COLUMNS, TILE, Looks
from service.datasets.words import counted, named
from service.views.schemas import ContactSheet, DatasetReport
from tinytl.squares import FITS, Fit

_FEW_TRAINING_IMAGES = 20
_FEW_TEST_IMAGES = 30
_STRONG_IMBALANCE = 10
_NO_LOSS = 0.05
"""Of the pictures' area: a margin."""
_LONG_SIDES = 2
"""Times as long as wide: most of such an image is outside its centre square."""
_SMALL_SIDE = 32
"""Pixels; smaller images are enlarged whatever a job's resolution."""
_FOLDER_OF: dict[Split, str] = {"train": "training", "val": "validation", "test": "test"}


class Findings:
    """Takes a dataset's images one by one, in the order of its layout; then reports."""

    def __init__(self, files: Sequence[Placed]) -> None:
        self._formats: Counter[str] = Counter()
        self._smallest: ImageFacts | None = None
        self._largest: ImageFacts | None = None
        self._small = _Examples()
        self._long = _Examples()
        self._looks = Looks(files)
        self._crop_losses: list[float] = []
        self._first_of: dict[bytes, Placed] = {}
        self._contradicting = _Examples()
        self._leaking = _Examples()
        self._repeated = _Examples()

    def add(self, placed: Placed, facts: ImageFacts, image: Image.Image, sha256: bytes) -> None:
        self._looks.add(placed, image)
        self._crop_losses.append(crop_loss(facts.width, facts.height))
        self._formats[facts.format] += 1
        if self._smallest is None or facts.num_pixels < self._smallest.num_pixels:
            self._smallest = facts
        if self._largest is None or facts.num_pixels > self._largest.num_pixels:
            self._largest = facts
        short, long = sorted((facts.width, facts.height))
        if long > _LONG_SIDES * short:
            self._long.add(f"{placed.path!r} with {facts.width} x {facts.height}")
        if short < _SMALL_SIDE:
            self._small.add(f"{placed.path!r} with {facts.width} x {facts.height}")
        first = self._first_of.setdefault(sha256, placed)
        if first is not placed:
            self._add_repeated(first, placed)

    def report(self, layout: Layout, *, num_ignored: int, skipped: Sequence[str]) -> DatasetReport:
        """At least one image was added. layout: without the skipped images."""
        assert self._smallest is not None
        assert self._largest is not None
        loss = sum(self._crop_losses) / len(self._crop_losses)
        fit = choose_fit(loss)
        return DatasetReport(
            formats=dict(sorted(self._formats.items())),
            smallest_image=(self._smallest.width, self._smallest.height),
            largest_image=(self._largest.width, self._largest.height),
            ignored_files=num_ignored,
            notes=[
                *layout.notes,
                *_notes_on_skipped(skipped),
                *self._looks.notes(),
                *_notes_on_splits(layout),
                *_notes_on_classes(layout),
                *self._notes_on_repetition(),
                *self._notes_on_sizes(fit),
                *_notes_on_fit(fit, loss),
            ],
            fit=fit,
            crop_loss=round(loss, 4),
            contact_sheet=ContactSheet(classes=dict(self._looks.rows), tile=TILE, columns=COLUMNS),
        )

    def contact_sheets(self) -> dict[Fit, bytes]:
        """JPEGs of a few images of each class, as each fit shows them."""
        return {fit: self._looks.sheet(fit) for fit in FITS}

    def _add_repeated(self, first: Placed, again: Placed) -> None:
        pair = f"{first.path!r} and {again.path!r}"
        if first.class_name != again.class_name:
            self._contradicting.add(pair)
        elif first.split != again.split:
            self._leaking.add(pair)
        else:
            self._repeated.add(pair)

    def _notes_on_repetition(self) -> list[str]:
        notes = []
        if found := self._contradicting:
            notes.append(
                f"The same image is in different classes {found.times}, such as {found.first}: "
                f"nothing can tell them apart; keep it where it belongs."
            )
        if found := self._leaking:
            notes.append(
                f"The same image is in different splits {found.times}, such as {found.first}: "
                f"accuracy will look better than it is; keep it in one split."
            )
        if found := self._repeated:
            notes.append(
                f"The same image is in a class again {found.times}, such as {found.first}: it "
                f"adds nothing, and where splits are taken from the training images it may be "
                f"trained on and tested with; remove the copies."
            )
        return notes

    def _notes_on_sizes(self, fit: Fit) -> list[str]:
        notes = []
        if found := self._small:
            notes.append(
                f"{_images(found.count)} {'has' if found.count == 1 else 'have'} a side shorter "
                f"than {_SMALL_SIDE} pixels, such as {found.first}: they are enlarged and show "
                f"little; take larger ones if there are any."
            )
        if (found := self._long) and fit == "crop":
            notes.append(
                f"{_images(found.count)} {'is' if found.count == 1 else 'are'} more than "
                f"{_LONG_SIDES} times as long as wide, such as {found.first}: only the centre "
                f"square is used; crop to what matters, or say squash or pad for fit."
            )
        return notes


class _Examples:
    """How often something was found, and the first place of it. False where it never was."""

    def __init__(self) -> None:
        self.count = 0
        self.first = ""

    def add(self, example: str) -> None:
        self.first = self.first or example
        self.count += 1

    def __bool__(self) -> bool:
        return self.count > 0

    @property
    def times(self) -> str:
        return "once" if self.count == 1 else f"{self.count} times"


def _notes_on_splits(layout: Layout) -> list[str]:
    counts = layout.counts()
    splits: tuple[Split, ...] = ("val", "test")
    missing = [_FOLDER_OF[split] for split in splits if split not in counts]
    notes = []
    if missing:
        then = " for the test, then a fifth of the rest to validate" if len(missing) == 2 else ""
        notes.append(
            f"There are no {' and no '.join(missing)} images: a fifth of every class's training "
            f"images will be taken{then}. Images from other times or places would test more "
            f"honestly."
        )
    for split in splits:
        if split not in counts:
            continue
        empty = [name for name, count in counts[split].items() if count == 0]
        if empty:
            notes.append(
                f"{_classes(empty)} {'has' if len(empty) == 1 else 'have'} no "
                f"{_FOLDER_OF[split]} images: how well "
                f"{'it is' if len(empty) == 1 else 'they are'} told from the others stays "
                f"unknown; move some there."
            )
    num_test = sum(counts.get("test", {}).values())
    if 0 < num_test < _FEW_TEST_IMAGES:
        notes.append(
            f"There {'is' if num_test == 1 else 'are'} only {_images(num_test, 'test ')}: "
            f"accuracy moves in steps of {1 / num_test:.0%}; more of them would tell more."
        )
    return notes


def _notes_on_classes(layout: Layout) -> list[str]:
    train = layout.counts()["train"]
    notes = []
    few = [name for name, count in train.items() if count < _FEW_TRAINING_IMAGES]
    if few:
        notes.append(
            f"{_classes(few)} {'has' if len(few) == 1 else 'have'} fewer than "
            f"{_FEW_TRAINING_IMAGES} training images: more of them would help most."
        )
    least = min(train, key=lambda name: train[name])
    most = max(train, key=lambda name: train[name])
    if train[most] >= _STRONG_IMBALANCE * train[least]:
        notes.append(
            f"Class {most!r} has {train[most]} training images and class {least!r} has "
            f"{train[least]}: what is rare is easily taken for what is common; add images of "
            f"{least!r}."
        )
    return notes


def _notes_on_skipped(problems: Sequence[str]) -> list[str]:
    if not problems:
        return []
    return [f"{counted('image', len(problems))} skipped: {'; '.join(problems)}."]


def _notes_on_fit(fit: Fit, loss: float) -> list[str]:
    """Nothing where next to nothing is lost."""
    if loss < _NO_LOSS:
        return []
    if fit == "crop":
        return [
            f"A picture becomes a square by its centre (crop), which leaves out {loss:.0%} of it "
            f"on average: where something at the sides counts, say squash or pad for fit."
        ]
    return [
        f"A picture becomes a square whole, out of proportion (squash), as its centre square "
        f"would leave out {loss:.0%} of it on average; crop or pad for fit would do otherwise."
    ]


def _images(count: int, kind: str = "") -> str:
    return counted(f"{kind}image", count)


def _classes(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"Class {names[0]!r}"
    return named("class", names)
