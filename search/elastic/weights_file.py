"""Files of supernets' weights: read safely, written in 16 bits."""

from __future__ import annotations

import json
import pickle
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from search.errors import SupernetError
from tinytl.training.checkpoint import atomic_write

_OF_DATA_PARALLEL = "module."
_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [Namespace]
"""Beside tensors, what files may hold: nothing of it runs code, and none of it is used."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or torch file, as torch.save writes {"state_dict": tensors by
    name}, with what else beside it. Nothing else is ever unpickled but plain values."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, SafetensorError) as error:
        reason = str(error) or "it is cut off"
        raise SupernetError(f"supernet file {path} can't be read: {reason}") from error
    except pickle.UnpicklingError as error:  # whose text says how to unpickle it all the same
        raise SupernetError(
            f"supernet file {path} is refused; save it anew where it was made, the weights "
            f'alone, by torch.save({{"state_dict": network.state_dict()}}, path): it is damaged, '
            f"or holds more than tensors"
        ) from error
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0].partition(". ")[0]
        raise SupernetError(f"supernet file {path} is damaged: {reason}") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise SupernetError(
            f'supernet file {path} must hold {{"state_dict": tensors by name}}, as torch.save '
            f"writes it"
        )
    if content and all(key.startswith(_OF_DATA_PARALLEL) for key in content):
        return {key.removeprefix(_OF_DATA_PARALLEL): value for key, value in content.items()}
    return content


def in_16_bits(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All weights in 16 bits, batch norm statistics in 32; counters are left out."""
    return {
        name: (value if ".running_" in name else value.half()).cpu().contiguous()
        for name, value in tensors.items()
        if not name.endswith(".num_batches_tracked")
    }


def write_weights(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write path (.safetensors) and its card (.json) beside it, each whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_bytes(save(dict(tensors)))
    with atomic_write(path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(card, indent=1) + "\n")
