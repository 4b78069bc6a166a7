"""What pretraining leaves: the weights in the official key layout, and a card to tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from search.elastic.supernet import Supernet, supernet_tensors
from search.elastic.weights_file import write_weights
from search.pretraining.settings import PretrainSettings

_METHOD = (
    "Sandwich rule: each step trains the largest subnet on the labels, the smallest and random "
    "ones on what the largest says, each with lite residual modules of a random size or without. "
    "SGD, Nesterov momentum 0.9, linear warm-up, then a cosine."
)


@dataclass(frozen=True, kw_only=True)
class Note:
    """What a card tells that training itself does not know.

    data: JSON of the images, such as names and counts; a training goes on with the same only.
    start: the card of the supernet that it starts from, where there is one.
    """

    data: Mapping[str, Any]
    classes: tuple[str, ...]
    licence: str
    start: Mapping[str, Any] | None = None


def write_supernet(path: Path, supernet: Supernet, card: Mapping[str, Any]) -> None:
    """Write path (.safetensors) and its card (.json) beside it, each whole or not at all."""
    write_weights(path, supernet_tensors(supernet), card)


def card(
    supernet: Supernet,
    settings: PretrainSettings,
    note: Note,
    top1_accuracy: Mapping[str, Any],
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """The card of a trained supernet. training: its steps, processes, device and seconds."""
    modules = supernet.lite_residuals.values()
    return {
        "architecture": settings.architecture,
        "num_classes": supernet.num_classes,
        "num_parameters": _num_parameters(supernet.network),
        "num_lite_residual_parameters": sum(map(_num_parameters, modules)),
        "weights": "float16 of the trained float32 values; keys of ofa's elastic networks",
        "norm": supernet.spec.norm.kind,
        "data": {**note.data, **asdict(supernet.spec.normalization)},
        "recipe": {"method": _METHOD, "settings": asdict(settings), **training},
        "start": note.start,
        "top1_accuracy": top1_accuracy,
        "licence": note.licence,
        "versions": {"tinyfit": version("tinyfit"), "torch": torch.__version__},
        "classes": note.classes,
    }


def _num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
