"""The look at a supernet: trained a little, the same each time, test images left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.adaptation import probe as probe_module
from search.adaptation.probe import MAX_IMAGES, Probe, probe
from search.elastic.supernet import load_supernet
from search.space.candidates import SearchSpace
from search.space.lite_residual_sizes import NONE_OR_ANY
from search.supernets.registry import DEFAULT_SUPERNET
from tinytl.description.config import LiteResidualSize
from tinytl.description.method import Method
from tinytl.errors import CancelledError
from tinytl.training.data import ImageSplit, ImageStore, Split
from tinytl.training.train import TrainSettings


def store_of(counts: dict[Split, int]) -> ImageStore:
    """Of two classes: stripes from side to side, and from top to bottom."""
    rng = np.random.default_rng(0)
    splits: dict[Split, ImageSplit] = {}
    for name, count in counts.items():
        labels = np.arange(count) * 2 // count
        images = rng.integers(0, 256, (count, 3, 48, 1), dtype=np.uint8).repeat(48, 3)
        images[labels == 1] = images[labels == 1].swapaxes(2, 3)
        splits[name] = ImageSplit(images, labels)
    return ImageStore(splits, "ab", 48)


@pytest.mark.parametrize("size", NONE_OR_ANY[:2])
def test_a_probe_is_the_same_each_time_and_can_be_stopped(
    tmp_path: Path, size: LiteResidualSize | None
) -> None:
    supernet = load_supernet(DEFAULT_SUPERNET, tmp_path)
    spec = supernet.spec
    space = SearchSpace(supernet=spec, resolutions=(32,), lite_residual_sizes=NONE_OR_ANY)
    candidate = space.candidate(spec.smallest, 32, size)
    store = store_of({"train": 40, "val": 20, "test": 2})

    def look(**named: Any) -> Probe:
        return probe(
            supernet,
            candidate,
            store,
            method=Method.LITE_RESIDUAL_BIAS,
            settings=TrainSettings(epochs=9),
            **named,
        )

    first, second = look(), look()
    assert first.resolution == 32
    assert np.array_equal(first.correct, second.correct)
    assert len(first.correct) == 60  # no test image
    assert first.accuracy > 0.9
    with pytest.raises(CancelledError):
        look(should_stop=lambda: True)


def test_of_many_images_some_are_looked_at_with_each_class_s_share() -> None:
    few = probe_module._some_of(store_of({"train": 900, "val": 300, "test": 2}), 32)
    names: tuple[Split, ...] = ("train", "val")
    counts = {name: np.bincount(few.split(name).labels).tolist() for name in names}
    assert counts == {"train": [150, 150], "val": [50, 50]}
    assert few.image_size == 32
    assert sum(map(sum, counts.values())) == MAX_IMAGES
