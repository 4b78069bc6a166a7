"""What samplers search in: candidates, what each takes to train, and how accurate it is.

A row is an array (P,) of the index of each choice's value; rows are (N, P). Two kinds:

- OFA's published predictor of ImageNet accuracy over its MobileNetV3 subnets (arXiv 1908.09791),
  given as a file: free of noise, some 10^19 candidates at 160 to 224 pixels;
- the tables of benchmarks.search.tables in benchmarks/landscapes.

Memory is the lean peak of training lite residuals and biases in batches of 8, as tinyfit predicts
it: with 1000 classes for the predictor's subnets, with those of its dataset for a table's.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from benchmarks.search.tables import Table
from search.space.architecture import SupernetSpec
from search.space.bulk_pricing import BulkPricing
from search.space.candidates import SearchSpace
from tinytl.description.method import Method, PeakMeaning

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

PREDICTOR = "ofa_imagenet"

_PREDICTOR_SUPERNET = "ofa_mbv3_d234_e346_k357_w1.0"
_PREDICTOR_RESOLUTIONS = (160, 176, 192, 208, 224)
_NUM_PREDICTOR_RESOLUTIONS = 8
_SMALLEST_PREDICTOR_RESOLUTION = 112
_IMAGENET_CLASSES = 1000
_METHOD = Method.LITE_RESIDUAL_BIAS
_PEAK = PeakMeaning.TORCH
"""What the records of searches were priced in."""
_UNLIMITED = 1 << 40
_NUM_DIGEST_ROWS = 512
_MAX_PRICED_AT_ONCE = 10_000


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """A space with the accuracy, 0 to 1, of every candidate.

    widen: rows -> rows of the supernet's whole space, whose candidates they are. present: which
    entries (N, P) count: not those of blocks beyond their stage's depth. num_images: how many an
    accuracy was measured on; None: it is free of noise.
    """

    name: str
    choices: dict[str, tuple[int, ...]]
    space: SearchSpace
    num_classes: int
    num_images: int | None
    widen: Callable[[Rows], Rows]
    present: Callable[[Rows], NDArray[np.bool_]]
    accuracy: Callable[[Rows], Floats]

    @property
    def chance(self) -> float:
        """The accuracy of guessing."""
        return 1 / self.num_classes

    @cached_property
    def sizes(self) -> Rows:
        """How many values each choice has (P,)."""
        return np.array([len(values) for values in self.choices.values()])

    @cached_property
    def _pricing(self) -> BulkPricing:
        return BulkPricing(self.space, _METHOD, self.num_classes)

    @cached_property
    def _all_bytes(self) -> dict[int, Floats]:
        """Lean peaks of all candidates of a small space, by limit."""
        return {}

    def every_row(self) -> Rows:
        """All candidates (N, P) of a small space."""
        return np.stack([axis.ravel() for axis in np.indices(self.sizes)], axis=1)

    def canonical(self, rows: Rows) -> Rows:
        """The same candidates, with one row for each."""
        return np.where(self.present(rows), rows, 0)

    def peak_bytes(self, rows: Rows, limit_bytes: int = _UNLIMITED) -> Floats:
        """Lean peaks (N,) on a device of this limit."""
        if math.prod(self.sizes.tolist()) <= _MAX_PRICED_AT_ONCE:
            if limit_bytes not in self._all_bytes:
                peaks = self._pricing.lean_peak_bytes(self.widen(self.every_row()), limit_bytes)
                self._all_bytes[limit_bytes] = peaks.astype(float)
            return self._all_bytes[limit_bytes][np.ravel_multi_index(tuple(rows.T), self.sizes)]
        return self._pricing.lean_peak_bytes(self.widen(rows), limit_bytes).astype(float)

    def macs(self, rows: Rows) -> Floats:
        """Multiply-accumulates (N,) of one image forward."""
        return self._pricing.macs(self.widen(rows)).astype(float)

    def limit_bytes(self, share: float) -> int:
        """The limit at this share of the way from the smallest to the largest candidate."""
        smallest, largest = self.peak_bytes(np.stack([0 * self.sizes, self.sizes - 1]))
        return round(smallest + share * (largest - smallest))

    @cached_property
    def digest(self) -> str:
        """Names the landscape by what some hundred rows take and bring."""
        rng = np.random.default_rng(0)
        rows = rng.integers(self.sizes, size=(_NUM_DIGEST_ROWS, len(self.sizes)))
        rows = self.canonical(np.concatenate([rows, [0 * self.sizes, self.sizes - 1]]))
        facts = [
            list(self.choices.items()),
            self.peak_bytes(rows).tolist(),
            self.peak_bytes(rows, self.limit_bytes(0.25)).tolist(),
            self.macs(rows).tolist(),
            np.round(self.accuracy(rows), 5).tolist(),
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def predictor_landscape(path: Path) -> Landscape:
    """All of OFA's MobileNetV3 space, judged by the predictor in this .safetensors file.

    128 inputs: of 20 blocks the kernel size, then the expand ratio, each one-hot and zero where
    the block is absent; then the resolution. Three hidden layers of 400, ReLU.
    """
    spec = SupernetSpec.parse(_PREDICTOR_SUPERNET)
    space = SearchSpace(supernet=spec, resolutions=_PREDICTOR_RESOLUTIONS, peak_meaning=_PEAK)
    choices = {k: v for k, v in space.choices().items() if k != "lite_residual"}
    num_blocks = spec.num_dynamic_blocks
    tensors = {name: value.astype(np.float64) for name, value in load_file(path).items()}
    layers = [(tensors[f"{i}.weight"].T, tensors[f"{i}.bias"]) for i in (0, 2, 4, 6)]

    def present(rows: Rows) -> NDArray[np.bool_]:
        depths = np.array(spec.depths)[rows[:, 2 * num_blocks : -1]]
        positions = np.arange(num_blocks)
        blocks = positions % spec.max_depth < depths[:, positions // spec.max_depth]
        others = np.ones((len(rows), len(spec.stages) + 1), dtype=bool)
        return np.concatenate([blocks, blocks, others], axis=1)

    def accuracy(rows: Rows) -> Floats:
        blocks = rows[:, : 2 * num_blocks, None] == np.arange(3)
        blocks &= present(rows)[:, : 2 * num_blocks, None]
        resolutions = np.array(_PREDICTOR_RESOLUTIONS)[rows[:, -1]]
        number = (resolutions - _SMALLEST_PREDICTOR_RESOLUTION) // 16
        last = number[:, None] == np.arange(_NUM_PREDICTOR_RESOLUTIONS)
        x = np.concatenate([blocks.reshape(len(rows), -1), last], axis=1).astype(np.float64)
        for weight, bias in layers[:-1]:
            x = np.maximum(x @ weight + bias, 0)
        weight, bias = layers[-1]
        # Rounded, as sums in another order differ in their last digits.
        return np.round((x @ weight + bias)[:, 0], 7)

    return Landscape(
        name=PREDICTOR,
        choices={name: tuple(int(v) for v in values) for name, values in choices.items()},
        space=space,
        num_classes=_IMAGENET_CLASSES,
        num_images=None,
        widen=lambda rows: np.pad(rows, ((0, 0), (0, 1))),
        present=present,
        accuracy=accuracy,
    )


def table_landscape(path: Path) -> Landscape:
    """The candidates of a table, as benchmarks.search.tables writes it."""
    table = Table.read(path)
    spec = SupernetSpec.parse(table.supernet)
    choices = {name: tuple(values) for name, values in table.choices.items()}
    space = SearchSpace(supernet=spec, resolutions=choices["resolution"], peak_meaning=_PEAK)
    shape = [len(values) for values in choices.values()]
    accuracies = np.array(table.correct).reshape(shape) / table.num_images

    def widen(rows: Rows) -> Rows:
        depths, (kernel, expand, resolution) = rows[:, :-3], rows[:, -3:].T
        blocks = np.arange(spec.num_dynamic_blocks)
        stages = np.minimum(blocks // spec.max_depth, len(spec.stages) - 1)
        # The last block of ProxylessNAS is beyond the elastic stages and always there.
        is_present = blocks % spec.max_depth < np.array(spec.depths)[depths[:, stages]]
        is_present |= blocks >= len(spec.stages) * spec.max_depth
        return np.concatenate(
            [
                kernel[:, None] * is_present,
                expand[:, None] * is_present,
                depths,
                resolution[:, None],
                np.zeros((len(rows), 1), dtype=np.intp),
            ],
            axis=1,
        )

    return Landscape(
        name=table.dataset,
        choices=choices,
        space=space,
        num_classes=table.num_classes,
        num_images=table.num_images,
        widen=widen,
        present=lambda rows: np.ones(rows.shape, dtype=bool),
        accuracy=lambda rows: accuracies[tuple(rows.T)],
    )
