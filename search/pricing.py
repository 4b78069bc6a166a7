"""Peak training bytes of candidates in plain Python: no module built, no torch imported."""

from __future__ import annotations

from search.architecture import SupernetSpec
from search.space import Candidate
from tinytl.config import NetworkConfig, with_lite_residuals
from tinytl.memory import PeakMemory, peak_memory
from tinytl.trainable import Method


def network_of(
    spec: SupernetSpec, candidate: Candidate, method: Method, num_classes: int
) -> NetworkConfig:
    """The network that a candidate stands for, with lite residuals where the method has them."""
    network = spec.network_config(candidate.subnet, num_classes)
    if method.uses_lite_residual:
        return with_lite_residuals(network, candidate.lite_residual)
    return network


def price(
    spec: SupernetSpec, candidate: Candidate, method: Method, num_classes: int
) -> PeakMemory:
    """Predicted peak training bytes of a candidate with its plan."""
    network = network_of(spec, candidate, method, num_classes)
    return peak_memory(network, method, candidate.plan, candidate.resolution)
