"""How much work a job is, counted beforehand: what its progress and the time left go by.

The unit is one image's forward pass through the largest subnet at the job's largest resolution.
The factors are those of jobs on one core, taken apart by stage; they need not be exact, as each
stage is told by its own pace once it has begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from search.adaptation.adapted import HEAD_IMAGES
from search.adaptation.probe import MAX_IMAGES
from search.space.families import Recipe
from service.contract.requests import JobSettings
from service.work.job.progress import Stage

_SIDE = 96
"""At which supernets are looked at and, in full batches, adapted, in pixels."""
_DECODING = 0.2
_LOOK_EPOCH, _ADAPTING, _TRAINING = 4.5, 3.5, 2.5
"""Of an image, by its training, forward and backward."""
_ADAPT_BATCH = 32
_MATCHING = 150.0
"""For a subnet's statistics."""
_FIXED_MEASURING, _FIXED_EXPORTING = 700.0, 200.0
"""At 224 pixels: what takes as long whatever the images are."""
_FIXED_SIDE = 224
_TESTING = 4.0
_PASSES_PER_SECOND = 90.0
"""At 224 pixels, in a search that is limited by time."""


@dataclass(frozen=True, kw_only=True)
class SplitSizes:
    """Images in each split."""

    train: int
    val: int
    test: int


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Work of a job's parts, in their order."""

    ingesting: float
    looking: float
    adapting: float
    searching: float
    measuring: float
    training: float
    exporting: float

    @classmethod
    def of(
        cls,
        settings: JobSettings,
        recipe: Recipe,
        sizes: SplitSizes,
        *,
        resolutions: Sequence[int],
        look_epochs: Sequence[int],
    ) -> Self:
        """resolutions: of the supernet, rising. look_epochs: of each look at a supernet."""
        largest = resolutions[-1]
        small = min(1.0, (_SIDE / largest) ** 2)
        fixed = (_FIXED_SIDE / largest) ** 2
        # A search prefers the larger of what it may choose, within its limit.
        usual = sum(resolutions) / len(resolutions) / largest
        num_trained = sizes.train + settings.refit * sizes.val
        num_looked_at = min(MAX_IMAGES, sizes.train + sizes.val)
        trial = sizes.val + HEAD_IMAGES + _MATCHING
        searching = settings.trials * usual * trial
        if settings.time_limit_seconds is not None:
            searching = min(searching, settings.time_limit_seconds * _PASSES_PER_SECOND * fixed)
        epochs = settings.epochs_by(recipe, sizes.train, sizes.val)
        return cls(
            ingesting=_DECODING * (sizes.train + sizes.val + sizes.test),
            looking=small * num_looked_at * sum(_LOOK_EPOCH * count + 1 for count in look_epochs),
            adapting=small * _ADAPTING * _ADAPT_BATCH * settings.adapt_steps_by(recipe),
            searching=searching,
            measuring=_FIXED_MEASURING * fixed + num_trained,
            training=_TRAINING * epochs * num_trained,
            exporting=_FIXED_EXPORTING * fixed + _TESTING * sizes.test,
        )

    @property
    def stages(self) -> dict[Stage, float]:
        return {
            Stage.INGEST: self.ingesting,
            Stage.ADAPT: self.looking + self.adapting,
            Stage.SEARCH: self.searching,
            Stage.TRAIN: self.measuring + self.training,
            Stage.EXPORT: self.exporting,
        }

    @property
    def looked(self) -> float:
        """The share of the adapt stage that is done once the supernet is chosen."""
        return self.looking / (self.looking + self.adapting)

    @property
    def measured(self) -> float:
        """The share of the train stage that is done once the memory is measured."""
        return self.measuring / (self.measuring + self.training)
