"""The bundle that a user downloads: weights beside readable JSON, in one zip."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from tinytl.description.bundle_format import FORMAT_VERSION, check_format_version
from tinytl.description.config import IMAGENET, NetworkConfig
from tinytl.description.method import Method
from tinytl.description.ofa_format import from_ofa, to_ofa
from tinytl.description.plan import Plan
from tinytl.engine.layers import WeightBits
from tinytl.engine.network import Network, set_trainable
from tinytl.errors import BundleError, DataError
from tinytl.squares import Fit, Squaring
from tinytl.training.checkpoint import atomic_write
from tinytl.training.data import evaluation_view

_WEIGHTS, _CONFIG, _CARD, _REPORT = "model.safetensors", "config.json", "card.md", "report.json"
_FIT_TEXTS: Mapping[Fit, str] = {
    "crop": "short side to image_size, centre square",
    "pad": "long side to image_size, centred on the mean colour",
    "squash": "both sides to image_size",
}
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAX_WEIGHTS_BYTES = 1 << 30
_MAX_JSON_BYTES = 1 << 26
_MAX_SIDE = 4096
_HASH_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class BundleInfo:
    """A written bundle: its size and SHA-256."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The most likely class of an image and every class's probability."""

    label: str
    probabilities: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A loaded bundle: a network that predicts, and that tinytl.training.train.train goes on
    training."""

    network: Network
    classes: tuple[str, ...]
    resolution: int
    image_size: int
    """Side of the squares that the images of the training were kept as."""
    plan: Plan
    report: Mapping[str, Any]
    squaring: Squaring
    """How those images became squares, and how others become them here."""

    @property
    def method(self) -> Method:
        return self.network.method

    @torch.no_grad()
    def predict(self, image: Image.Image | Path) -> Prediction:
        """Classify one image of any size and mode, or an image file, seen as the images of the
        test were. Those were files: large JPEGs are read at a reduced scale, whose pixels differ
        a little from those of an image that was opened before. Raises DataError for a file that
        is no image.
        """
        pixels = evaluation_view(image, self.image_size, self.resolution, self.squaring)[None]
        probabilities = self.network(pixels.to(self.network.device)).softmax(1)[0].tolist()
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        return Prediction(
            label=self.classes[best],
            probabilities=dict(zip(self.classes, probabilities, strict=True)),
        )


def save_bundle(
    path: Path,
    network: Network,
    *,
    resolution: int,
    image_size: int,
    plan: Plan,
    classes: Sequence[str],
    report: Mapping[str, Any],
    card: str,
    squaring: Squaring | None = None,
    attachments: Mapping[str, bytes] | None = None,
) -> BundleInfo:
    """Write a bundle atomically. Equal input gives equal bytes.

    image_size, squaring: of the store that the network was trained and tested on. attachments:
    files that report and card refer to, by name. Raises BundleError,
    before anything is written, for what load would refuse.
    """
    squaring = squaring or Squaring()
    _checked_classes(list(classes), network.config.num_classes)
    _checked_side("resolution", resolution)
    _checked_side("image_size", image_size)
    if _layout(network) != _layout(
        _empty_network(network.config, network.method, network.weight_bits, plan)
    ):
        raise BundleError(
            f"the network's trained weights are not in the {plan.trained_bits} bits of the plan; "
            f"network.store_trained({plan.trained_bits}) stores them so"
        )
    normalization = network.config.normalization
    config = {
        "format_version": _format_version(network.config, squaring),
        "network": to_ofa(network.config),
        "weight_bits": network.weight_bits,
        "method": network.method.value,
        "plan": asdict(plan),
        "classes": list(classes),
        "preprocessing": {
            "resolution": resolution,
            "image_size": image_size,
            **asdict(squaring),
            "resize": f"{_FIT_TEXTS[squaring.fit]} (bicubic), to resolution (bilinear, "
            f"antialiased)",
            "scale": "1/255",
            "mean": normalization.mean,
            "std": normalization.std,
        },
    }
    entries = {
        _WEIGHTS: safetensors.torch.save(
            {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        ),
        _CONFIG: json.dumps(config, indent=1).encode(),
        _CARD: card.encode(),
        _REPORT: json.dumps(report, indent=1).encode(),
        **(attachments or {}),
    }
    with atomic_write(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return BundleInfo(bytes=path.stat().st_size, sha256=_sha256(path))


def _format_version(network: NetworkConfig, squaring: Squaring) -> int:
    plain = network.padding == NetworkConfig.padding and network.normalization == IMAGENET
    return 1 if plain and squaring.fit == "crop" else FORMAT_VERSION


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def load(path: str | os.PathLike[str]) -> Bundle:
    """Load a bundle; nothing in it is ever unpickled.

    Raises BundleError where the file is damaged, of a later format or no bundle at all.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(_read(archive, _CONFIG, _MAX_JSON_BYTES))
            report = json.loads(_read(archive, _REPORT, _MAX_JSON_BYTES))
            tensors = safetensors.torch.load(_read(archive, _WEIGHTS, _MAX_WEIGHTS_BYTES))
        return _build(config, report, tensors)
    except BundleError as error:
        raise BundleError(f"{path.name}: {error}") from error
    except (
        OSError,
        EOFError,
        zipfile.BadZipFile,
        KeyError,
        TypeError,
        ValueError,
        ArithmeticError,
        RuntimeError,
        DataError,
        SafetensorError,
    ) as error:
        raise BundleError(f"{path.name} is no bundle of tinyfit: {error}") from error


def _build(config: Any, report: Any, tensors: dict[str, Tensor]) -> Bundle:
    check_format_version(config["format_version"])
    bits = config["weight_bits"]
    if bits not in (8, 32):
        raise BundleError(f"weight_bits must be 8 or 32 but got {bits!r}")
    plan = Plan.from_dict(config["plan"])
    # nothing is allocated before the file is known to hold the tensors
    network = _empty_network(from_ofa(config["network"]), Method(config["method"]), bits, plan)
    if _layout(network) != {name: (t.shape, t.dtype) for name, t in tensors.items()}:
        raise BundleError("its tensors are not those of its network")
    network.load_state_dict(tensors, assign=True)
    set_trainable(network, network.method)
    seen = config["preprocessing"]
    its = network.config.normalization
    for name, ours in (("mean", its.mean), ("std", its.std)):
        if tuple(seen.get(name, ours)) != ours:
            raise BundleError(
                f"preprocessing has the {name} {seen[name]!r}, but the network {list(ours)}"
            )
    return Bundle(
        network=network,
        classes=_checked_classes(config["classes"], network.config.num_classes),
        resolution=_checked_side("resolution", seen["resolution"]),
        image_size=_checked_side("image_size", seen.get("image_size", seen["resolution"])),
        plan=plan,
        report=report,
        squaring=Squaring.recorded(seen),
    )


def _empty_network(
    config: NetworkConfig, method: Method, weight_bits: WeightBits, plan: Plan
) -> Network:
    """On the meta device: it takes no memory."""
    with torch.device("meta"):
        network = Network(config, method, weight_bits)
        network.store_trained(plan.trained_bits)
    return network


def _layout(network: Network) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (t.shape, t.dtype) for name, t in network.state_dict().items()}


def _checked_classes(classes: Any, num_classes: int) -> tuple[str, ...]:
    is_list = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if not is_list or len(set(classes)) != len(classes) or len(classes) != num_classes:
        raise BundleError(f"classes must be {num_classes} different names but got {classes!r}")
    return tuple(classes)


def _checked_side(name: str, side: Any) -> int:
    if type(side) is not int or not 1 <= side <= _MAX_SIDE:
        raise BundleError(f"{name} must be from 1 to {_MAX_SIDE} but got {side!r}")
    return side


def _read(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > max_bytes:
        raise BundleError(
            f"entry {name!r} must be stored as it is, in at most {max_bytes} bytes, but has "
            f"{entry.file_size}"
        )
    return archive.read(entry)
