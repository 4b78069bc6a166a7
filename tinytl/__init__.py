"""TinyTL: on-device transfer learning with frozen weights (arXiv 2007.11622).

The rooms, from the ground up: `description` says what networks, methods and plans are,
`accounting` what they cost, `engine` runs a training step, `training` goes from images to a
bundle, `measurement` holds a training against its price. What is public can be imported from
here; importing the package alone does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinytl.accounting.compute import multiply_accumulates
    from tinytl.accounting.memory import peak_memory
    from tinytl.accounting.planner import fastest_plan
    from tinytl.accounting.published import published_memory
    from tinytl.description.config import NetworkConfig
    from tinytl.description.method import Method
    from tinytl.description.plan import Plan
    from tinytl.engine.network import build_network
    from tinytl.measurement.measure import measure_in_fresh_process
    from tinytl.training.bundle import load, save_bundle
    from tinytl.training.data import ImageStore, Sample, ingest, split_samples
    from tinytl.training.train import TrainSettings, evaluate, train

_MODULES = {
    "tinytl.accounting.compute": ("multiply_accumulates",),
    "tinytl.accounting.memory": ("peak_memory",),
    "tinytl.accounting.planner": ("fastest_plan",),
    "tinytl.accounting.published": ("published_memory",),
    "tinytl.description.config": ("NetworkConfig",),
    "tinytl.description.method": ("Method",),
    "tinytl.description.plan": ("Plan",),
    "tinytl.engine.network": ("build_network",),
    "tinytl.measurement.measure": ("measure_in_fresh_process",),
    "tinytl.training.bundle": ("load", "save_bundle"),
    "tinytl.training.data": ("ImageStore", "Sample", "ingest", "split_samples"),
    "tinytl.training.train": ("TrainSettings", "evaluate", "train"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "ImageStore",
    "Method",
    "NetworkConfig",
    "Plan",
    "Sample",
    "TrainSettings",
    "build_network",
    "evaluate",
    "fastest_plan",
    "ingest",
    "load",
    "measure_in_fresh_process",
    "multiply_accumulates",
    "peak_memory",
    "published_memory",
    "save_bundle",
    "split_samples",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
