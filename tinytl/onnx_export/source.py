"""What an export is made of: a network and its values, as a job or a bundle has them.

No torch here: the web process exports bundles of earlier jobs.
"""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from tinytl.description.bundle_format import check_format_version
from tinytl.description.config import NetworkConfig
from tinytl.description.ofa_format import from_ofa
from tinytl.errors import BundleError
from tinytl.onnx_export.network import Tensors

_MAX_WEIGHTS_BYTES = 1 << 30
_MAX_JSON_BYTES = 1 << 26
_TYPES = {"I8": np.int8, "F32": np.float32, "BF16": np.uint16}


@dataclass(frozen=True, kw_only=True)
class ExportSource:
    """tensors: of the network's state dict; preprocessing: as the bundle's config.json has it."""

    network: NetworkConfig
    tensors: Tensors
    classes: tuple[str, ...]
    preprocessing: dict[str, Any]

    @property
    def resolution(self) -> int:
        resolution: int = self.preprocessing["resolution"]
        return resolution


def read_bundle(path: str | os.PathLike[str]) -> ExportSource:
    """Nothing in it is ever unpickled. Raises BundleError for what is no bundle."""
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(_read(archive, "config.json", _MAX_JSON_BYTES))
            check_format_version(config["format_version"])
            tensors = _tensors(_read(archive, "model.safetensors", _MAX_WEIGHTS_BYTES))
        network = from_ofa(config["network"])
        classes, seen = tuple(map(str, config["classes"])), config["preprocessing"]
        sides = [int(seen["resolution"]), int(seen.get("image_size", seen["resolution"]))]
        if len(classes) != network.num_classes or not all(1 <= side <= 4096 for side in sides):
            raise BundleError("its classes or image sizes are not those of its network")
        preprocessing = {**seen, "resolution": sides[0], "image_size": sides[1]}
    except (
        OSError,
        EOFError,
        zipfile.BadZipFile,
        KeyError,
        TypeError,
        ValueError,
        ArithmeticError,
        RuntimeError,
        AttributeError,
        SafetensorError,
    ) as error:
        raise BundleError(f"{path.name} is no bundle of tinyfit: {error}") from error
    return ExportSource(
        network=network, tensors=tensors, classes=classes, preprocessing=preprocessing
    )


def _read(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > max_bytes:
        raise BundleError(f"entry {name!r} must be stored as it is, in at most {max_bytes} bytes")
    return archive.read(entry)


def _tensors(content: bytes) -> Tensors:
    tensors: dict[str, NDArray[Any]] = {}
    for name, view in deserialize(content):  # type: ignore[no-untyped-call]
        values = np.frombuffer(view["data"], _TYPES[view["dtype"]]).reshape(view["shape"])
        tensors[name] = _widened(values) if view["dtype"] == "BF16" else values
    return tensors


def _widened(values: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 is the upper half of a float, and safetensors has no NumPy type for it."""
    return (values.astype(np.uint32) << 16).view(np.float32)
