"""The training plan: how one step is carried out so that it fits the device."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from tinytl.errors import ConfigError

OptimizerBits = Literal[8, 32]
TrainedBits = Literal[16, 32]


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Stages that a micro-batch passes before the next micro-batch starts.

    from_stage: the first of them (NetworkConfig.part_stages); the next stretch ends it.
    recomputes: whether backward runs forward again instead of keeping what it needs; the last
    stretch never has to.
    """

    from_stage: int = 0
    micro_batch_size: int
    recomputes: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a training step is carried out.

    batch_size: images per update. stretches: from input to output. Images are independent (no
    batch statistics), so stretches change memory and time, not the gradient. optimizer_bits:
    precision of Adam's two moments; trained_bits: of trained weights (32: float, 16: bfloat16).
    """

    batch_size: int = 8
    stretches: tuple[Stretch, ...] = (Stretch(micro_batch_size=8),)
    optimizer_bits: OptimizerBits = 32
    trained_bits: TrainedBits = 32

    def __post_init__(self) -> None:
        _check_integer("batch_size", self.batch_size, 1)
        if not self.stretches or self.stretches[0].from_stage != 0:
            raise ConfigError(f"a plan's first stretch must start at stage 0: {self.stretches!r}")
        for stretch in self.stretches:
            _check_integer("from_stage", stretch.from_stage, 0)
            _check_integer("micro-batch size", stretch.micro_batch_size, 1)
            if stretch.micro_batch_size > self.batch_size:
                raise ConfigError(
                    f"micro-batch size must be at most the batch size {self.batch_size} "
                    f"but got {stretch.micro_batch_size}"
                )
            if not isinstance(stretch.recomputes, bool):
                raise ConfigError(f"recomputes must be a bool but got {stretch.recomputes!r}")
        for before, after in pairwise(self.stretches):
            if after.from_stage <= before.from_stage:
                raise ConfigError(
                    f"a stretch must start after stage {before.from_stage}, where the one before "
                    f"starts, but got {after.from_stage}"
                )
        if self.stretches[-1].recomputes:
            raise ConfigError("a plan's last stretch has nothing to recompute")
        if self.optimizer_bits not in (8, 32):
            raise ConfigError(f"optimizer_bits must be 8 or 32 but got {self.optimizer_bits!r}")
        if self.trained_bits not in (16, 32):
            raise ConfigError(f"trained_bits must be 16 or 32 but got {self.trained_bits!r}")

    def part_starts(self, stages: Sequence[int]) -> list[int]:
        """Where each stretch begins among parts of these stages, and at last where they end.

        Raises ConfigError for a stretch that begins after the last stage.
        """
        last = self.stretches[-1].from_stage
        if last > stages[-1]:
            raise ConfigError(
                f"a stretch of the plan starts at stage {last}, but the network's last is "
                f"{stages[-1]}"
            )
        starts = [bisect_left(stages, stretch.from_stage) for stretch in self.stretches]
        return [*starts, len(stages)]

    @staticmethod
    def whole(batch_size: int, micro_batch_size: int | None = None) -> Plan:
        """One stretch, in 32 bits: the whole batch at once, or micro-batches of this size."""
        stretch = Stretch(micro_batch_size=micro_batch_size or batch_size)
        return Plan(batch_size=batch_size, stretches=(stretch,))

    @property
    def evaluation_batch_size(self) -> int:
        """Images that validation passes at once: no more than any stretch trains with."""
        return min(stretch.micro_batch_size for stretch in self.stretches)

    def describe(self) -> str:
        """One line for people, such as "batch 8, by 1 in stage 0, at once from stage 1"."""
        ends = [stretch.from_stage - 1 for stretch in self.stretches[1:]]
        words = [f"batch {self.batch_size}"]
        for stretch, end in zip(self.stretches, [*ends, None], strict=True):
            start = stretch.from_stage
            if end is None:
                where = f" from stage {start}" if start else ""
            else:
                where = f" in stage {start}" if end == start else f" in stages {start}-{end}"
            size = stretch.micro_batch_size
            passes = "at once" if size == self.batch_size else f"by {size}"
            words.append(f"{passes}{where}{' (recomputed)' * stretch.recomputes}")
        if self.optimizer_bits != 32:
            words.append(f"{self.optimizer_bits}-bit moments")
        if self.trained_bits != 32:
            words.append(f"{self.trained_bits}-bit trained weights")
        return ", ".join(words)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Plan:
        """The plan whose dataclasses.asdict this is, perhaps after a way through JSON."""
        try:
            stretches = tuple(Stretch(**stretch) for stretch in data["stretches"])
            return Plan(**{**data, "stretches": stretches})
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"not a training plan: {data!r}; one has batch_size and stretches, each with "
                f"from_stage, micro_batch_size and recomputes, and may have optimizer_bits and "
                f"trained_bits"
            ) from error


def _check_integer(name: str, value: int, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ConfigError(f"{name} must be an integer of at least {at_least} but got {value!r}")
