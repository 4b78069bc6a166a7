"""What pretraining leaves: the weights in the official key layout, and a card that tells of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from search.supernet import Supernet
from tinytl.checkpoint import written_whole


def supernet_tensors(supernet: Supernet) -> dict[str, torch.Tensor]:
    """All weights in 16 bits, batch norm statistics in 32, by ofa's names.

    Lite residual modules are under blocks.N.lite_residual.
    """
    tensors = {
        name: value
        for name, value in supernet.network.state_dict().items()
        if not name.endswith(".num_batches_tracked")
    }
    for index, module in supernet.lite_residuals.items():
        for name, value in module.state_dict().items():
            tensors[f"blocks.{index}.lite_residual.{name}"] = value
    return {
        name: (value if ".running_" in name else value.half()).cpu().contiguous()
        for name, value in tensors.items()
    }


def write_supernet(path: Path, supernet: Supernet, card: dict[str, Any]) -> None:
    """Write path (.safetensors) and its card (.json) beside it, each whole or not at all."""
    with written_whole(path) as partial:
        save_file(supernet_tensors(supernet), partial)
    with written_whole(path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(card, indent=1) + "\n")
