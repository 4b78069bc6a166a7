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

from tinytl.data import IMAGE_MEAN, IMAGE_STD, to_square
from tinytl.errors import BundleError, ConfigError
from tinytl.network import Network
from tinytl.ofa_format import from_ofa, to_ofa
from tinytl.plan import Plan
from tinytl.trainable import Method

FORMAT_VERSION = 1
_WEIGHTS, _CONFIG, _CARD, _REPORT = "model.safetensors", "config.json", "card.md", "report.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAX_ENTRY_BYTES = 1 << 30
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
    """A loaded bundle: a network that predicts, and that tinytl.train.train goes on training."""

    network: Network
    classes: tuple[str, ...]
    resolution: int
    plan: Plan
    report: Mapping[str, Any]

    @property
    def method(self) -> Method:
        return self.network.method

    @torch.no_grad()
    def predict(self, image: Image.Image) -> Prediction:
        """Classify one image of any size and mode."""
        pixels = torch.from_numpy(to_square(image, self.resolution))[None]
        probabilities = self.network(pixels).softmax(1)[0].tolist()
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
    plan: Plan,
    classes: Sequence[str],
    report: Mapping[str, Any],
    card: str,
) -> BundleInfo:
    """Write a bundle atomically. Equal input gives equal bytes."""
    config = {
        "format_version": FORMAT_VERSION,
        "network": to_ofa(network.config),
        "weight_bits": network.weight_bits,
        "method": network.method.value,
        "plan": asdict(plan),
        "classes": list(classes),
        "preprocessing": {
            "resolution": resolution,
            "resize": "short side to resolution, centre square",
            "scale": "1/255",
            "mean": IMAGE_MEAN,
            "std": IMAGE_STD,
        },
    }
    entries = {
        _WEIGHTS: safetensors.torch.save(
            {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        ),
        _CONFIG: json.dumps(config, indent=1).encode(),
        _CARD: card.encode(),
        _REPORT: json.dumps(report, indent=1).encode(),
    }
    partial = path.with_name(f"{path.name}.partial.{os.getpid()}")
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            for name, content in entries.items():
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
        info = BundleInfo(bytes=partial.stat().st_size, sha256=_sha256(partial))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return info


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
            config = json.loads(_read(archive, _CONFIG))
            report = json.loads(_read(archive, _REPORT))
            tensors = safetensors.torch.load(_read(archive, _WEIGHTS))
        if config["format_version"] != FORMAT_VERSION:
            raise BundleError(
                f"{path.name} has format version {config['format_version']!r}; "
                f"this version of tinyfit reads {FORMAT_VERSION}"
            )
        network = Network(
            from_ofa(config["network"]), Method(config["method"]), config["weight_bits"]
        )
        network.load_state_dict(tensors)
        plan = config["plan"]
        return Bundle(
            network=network,
            classes=tuple(config["classes"]),
            resolution=config["preprocessing"]["resolution"],
            plan=Plan(**{**plan, "micro_batch_sizes": tuple(plan["micro_batch_sizes"])}),
            report=report,
        )
    except BundleError:
        raise
    except (
        OSError,
        zipfile.BadZipFile,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        SafetensorError,
        ConfigError,
    ) as error:
        raise BundleError(f"{path.name} is no bundle of tinyfit: {error}") from error


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    size = archive.getinfo(name).file_size
    if size > _MAX_ENTRY_BYTES:
        raise BundleError(f"entry {name!r} of the bundle is implausibly large: {size} bytes")
    return archive.read(name)
