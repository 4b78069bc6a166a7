"""What a delivered network may take beside its training: the size of its values, the memory of
classifying. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from tinytl.accounting.inference_memory import process_bytes
from tinytl.accounting.model_size import model_bytes
from tinytl.description.config import NetworkConfig
from tinytl.description.method import Method


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Most bytes, None without a bound: of a network's values as a bundle stores them
    (tinytl.accounting.model_size), and of a process that classifies with the int8 export
    (tinytl.accounting.inference_memory)."""

    model_bytes: int | None = None
    inference_bytes: int | None = None

    def __bool__(self) -> bool:
        """Whether anything is bounded."""
        return self != NO_BOUNDS

    def excess_bytes(self, network: NetworkConfig, method: Method, resolution: int) -> int:
        """By how much a network is over them, in all; 0 within them."""
        excess = 0
        if self.model_bytes is not None:
            excess += max(0, model_bytes(network, method) - self.model_bytes)
        if self.inference_bytes is not None:
            excess += max(0, process_bytes(network, resolution) - self.inference_bytes)
        return excess


NO_BOUNDS = Bounds()
