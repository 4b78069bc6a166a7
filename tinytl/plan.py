"""The training plan: how one step is carried out so that it fits the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tinytl.errors import ConfigError

OptimizerBits = Literal[32]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a training step is carried out.

    batch_size: images per update. micro_batch_sizes: images that pass together, one entry per
    stretch of the network from input to output; one entry means the whole network. Images are
    independent (no batch statistics), so the split changes the memory, not the gradient.
    optimizer_bits: precision of Adam's two moments.
    """

    batch_size: int = 8
    micro_batch_sizes: tuple[int, ...] = (8,)
    optimizer_bits: OptimizerBits = 32

    def __post_init__(self) -> None:
        if not _is_positive(self.batch_size):
            raise ConfigError(
                f"batch_size must be an integer of at least 1 but got {self.batch_size!r}"
            )
        if len(self.micro_batch_sizes) != 1:
            raise ConfigError(
                f"micro_batch_sizes must have one entry but got {self.micro_batch_sizes!r}"
            )
        if not _is_positive(self.micro_batch_size) or self.micro_batch_size > self.batch_size:
            raise ConfigError(
                f"micro-batch size must be an integer between 1 and the batch size "
                f"{self.batch_size} but got {self.micro_batch_size!r}"
            )
        if self.optimizer_bits != 32:
            raise ConfigError(f"optimizer_bits must be 32 but got {self.optimizer_bits!r}")

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Plan:
        """The plan whose dataclasses.asdict this is, perhaps after a way through JSON."""
        try:
            sizes = tuple(data["micro_batch_sizes"])
            return Plan(**{**data, "micro_batch_sizes": sizes})
        except (KeyError, TypeError) as error:
            raise ConfigError(f"not a training plan: {data!r}") from error

    @property
    def micro_batch_size(self) -> int:
        return self.micro_batch_sizes[0]


def _is_positive(value: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
