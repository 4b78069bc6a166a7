"""How a supernet is pretrained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from search.errors import PretrainError
from search.space.candidates import MAX_RESOLUTION, MIN_RESOLUTION

_MAX_VALIDATIONS = 10
_BATCH_SIZE, _MIN_BATCH_SIZE = 128, 8
_MIN_EPOCHS = 30
_MIN_STEPS_PER_EPOCH = 8
_MIN_STEPS = 4000


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a training is, by default, in batches of which size."""

    batch_size: int
    epochs: int
    learning_rate: float


def usual_schedule(num_images: int, num_processes: int, batch_size: int | None = None) -> Schedule:
    """For this many training images: small batches and many epochs where they are few.

    The learning rate goes by the batch size. batch_size: where it is not to be the usual one.
    """
    if batch_size is None:
        batch_size = _BATCH_SIZE
        while batch_size > _MIN_BATCH_SIZE and num_images < _MIN_STEPS_PER_EPOCH * batch_size:
            batch_size //= 2
        batch_size = max(1, min(batch_size, num_images) // num_processes) * num_processes
    return Schedule(
        batch_size=batch_size,
        epochs=max(_MIN_EPOCHS, -(-_MIN_STEPS // max(1, num_images // batch_size))),
        learning_rate=0.1 * batch_size / _BATCH_SIZE,
    )


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """How a supernet is pretrained; batch_size counts the images of all processes together.

    resolutions: sides of square inputs in pixels, one drawn each step. lite_residual_share: the
    share of subnets that run with lite residual modules, so that the main branch works with and
    without them; 0 makes a supernet that has none. start: a supernet of the same architecture
    whose weights are where training starts, an id or a path; None starts from random weights.
    """

    architecture: str
    start: str | None = None
    resolutions: tuple[int, ...] = (48, 64)
    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 0.1
    warmup_steps: int = 200
    weight_decay: float = 4e-5
    label_smoothing: float = 0.1
    num_random_subnets: int = 1
    lite_residual_share: float = 0.75
    min_crop_scale: float = 0.35
    horizontal_flip: bool = True
    brightness: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("batch_size", 2),
            ("warmup_steps", 0),
            ("num_random_subnets", 0),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if value < least:
                raise PretrainError(f"{name} must be at least {least} but got {value}")
        for name in ("label_smoothing", "brightness", "weight_decay"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise PretrainError(f"{name} must be at least 0 and below 1 but got {value}")
        if not 0 <= self.lite_residual_share <= 1:
            raise PretrainError(
                f"lite_residual_share must be from 0 to 1 but got {self.lite_residual_share}"
            )
        if not 0 < self.min_crop_scale <= 1:
            raise PretrainError(
                f"min_crop_scale must be above 0 and at most 1 but got {self.min_crop_scale}"
            )
        if not 0 < self.learning_rate < math.inf:
            raise PretrainError(f"learning_rate must be positive but got {self.learning_rate}")
        sides = self.resolutions
        if (
            not sides
            or list(sides) != sorted(set(sides))
            or not MIN_RESOLUTION <= sides[0] <= sides[-1] <= MAX_RESOLUTION
        ):
            raise PretrainError(
                f"resolutions must rise, from {MIN_RESOLUTION} to {MAX_RESOLUTION} pixels, "
                f"but are {sides}"
            )

    @property
    def trains_lite_residuals(self) -> bool:
        return self.lite_residual_share > 0

    def steps_per_epoch(self, num_images: int, num_processes: int) -> int:
        """Raises PretrainError where there is no whole batch, or no equal shares of it."""
        if self.batch_size > num_images:
            raise PretrainError(
                f"batch_size must be at most the {num_images} training images "
                f"but got {self.batch_size}"
            )
        if self.batch_size % num_processes:
            raise PretrainError(
                f"batch_size must be a multiple of the {num_processes} processes "
                f"but got {self.batch_size}"
            )
        return num_images // self.batch_size

    def validates_after(self, epoch: int) -> bool:
        """After every epoch (they count from 1); where there are many, some ten times."""
        return epoch == self.epochs or epoch % -(-self.epochs // _MAX_VALIDATIONS) == 0

    def learning_rate_at(self, step: int, num_steps: int) -> float:
        """Linear warm-up, over a tenth of the steps at most, then half a cosine down to 0."""
        warmup_steps = min(self.warmup_steps, num_steps // 10)
        warmup = min(1.0, (step + 1) / (warmup_steps + 1))
        return self.learning_rate * warmup * (1 + math.cos(math.pi * step / num_steps)) / 2
