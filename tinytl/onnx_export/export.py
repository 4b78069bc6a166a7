"""The export: models, predict.py and what it needs to know, in a folder or a zip."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError

from tinytl.errors import BundleError
from tinytl.onnx_export.files import MODEL_FILES, Precision
from tinytl.onnx_export.footprint import Footprint, measure_footprint
from tinytl.onnx_export.graph import IR_VERSION, OPSET
from tinytl.onnx_export.network import INPUT, OUTPUT, onnx_network
from tinytl.onnx_export.predict import open_session, run
from tinytl.onnx_export.source import ExportSource
from tinytl.units import format_bytes

FORMAT_VERSION = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)

Images = NDArray[np.uint8]
Probabilities = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ModelCheck:
    """How a model of the export compares with the network that it was written from, on the same
    images. largest_difference: of any class's probability on any image."""

    bytes: int
    num_images: int
    num_same_class: int
    largest_difference: float
    footprint: Footprint | None


def write_models(source: ExportSource, directory: Path) -> None:
    """Write both models into a folder. Raises BundleError for values of another network."""
    for precision, name in MODEL_FILES.items():
        try:
            model = onnx_network(
                source.network, source.tensors, resolution=source.resolution, precision=precision
            )
        except (KeyError, ValueError, ValidationError, InferenceError) as error:
            raise BundleError(f"its values are not those of its network: {error}") from error
        (directory / name).write_bytes(model.SerializeToString(deterministic=True))


def check_models(
    directory: Path,
    expected: Callable[[], Iterable[tuple[Images, Probabilities]]],
    *,
    num_threads: int = 1,
) -> dict[Precision, ModelCheck]:
    """Compare the folder's models with expected: batches of images and what the network says."""
    return {
        precision: _check(directory / name, expected(), num_threads)
        for precision, name in MODEL_FILES.items()
    }


def _check(
    model: Path, expected: Iterable[tuple[Images, Probabilities]], num_threads: int
) -> ModelCheck:
    session = open_session(model, num_threads=num_threads)
    num_images, num_same, largest = 0, 0, 0.0
    for images, probabilities in expected:
        found = run(session, images)
        num_images += len(images)
        num_same += int((found.argmax(1) == probabilities.argmax(1)).sum())
        largest = max(largest, float(np.abs(found - probabilities).max()))
    return ModelCheck(
        bytes=model.stat().st_size,
        num_images=num_images,
        num_same_class=num_same,
        largest_difference=largest,
        footprint=measure_footprint(model),
    )


def complete_folder(
    source: ExportSource, directory: Path, checks: Mapping[Precision, ModelCheck]
) -> None:
    """Add predict.py, model.json and README.md to the models; checks may be none."""
    described = {
        "format_version": FORMAT_VERSION,
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "input": {
            "name": INPUT,
            "type": "uint8",
            "shape": ["batch", 3, source.resolution, source.resolution],
            "values": "RGB, 0 to 255; normalized inside",
        },
        "output": {"name": OUTPUT, "type": "float32", "shape": ["batch", len(source.classes)]},
        "classes": list(source.classes),
        "preprocessing": source.preprocessing,
        "models": {
            name: asdict(checks[precision]) if precision in checks else None
            for precision, name in MODEL_FILES.items()
        },
    }
    script = Path(__file__).with_name("predict.py").read_text(encoding="utf-8")
    for name, text in (
        ("predict.py", script),
        ("model.json", json.dumps(described, indent=1)),
        ("README.md", _readme(checks)),
    ):
        (directory / name).write_text(text, encoding="utf-8")


def pack_folder(directory: Path, path: Path) -> None:
    """The folder's files as a zip. Equal files give equal bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(directory.iterdir()):
            archive.writestr(zipfile.ZipInfo(file.name, _EPOCH), file.read_bytes())


def _readme(checks: Mapping[Precision, ModelCheck]) -> str:
    lines = [
        "# Classify without tinyfit\n",
        "`model.onnx` computes and stores floats. `model.int8.onnx` stores the frozen weights in",
        "8 bits, as they are on the device, and computes in floats: smaller, leaner, a little",
        "slower.\n",
        "```bash\npip install onnxruntime numpy pillow\npython predict.py photo.jpg\n```\n",
        "Both take `images`, uint8 RGB, and give `probabilities`; `model.json` has the classes'",
        "names and how images become squares, which `predict.py` does to the pixel.\n",
    ]
    lines += [check_text(precision, check) for precision, check in checks.items()]
    return "\n".join(lines) + "\n"


def check_text(precision: Precision, check: ModelCheck) -> str:
    """What the check of a model found, in a sentence."""
    memory = ""
    if check.footprint is not None:
        memory = (
            f"; classifying takes {format_bytes(check.footprint.process_bytes)} with Python and "
            f"libraries, {format_bytes(check.footprint.growth_bytes)} beyond them"
        )
    return (
        f"{MODEL_FILES[precision]} ({format_bytes(check.bytes)}): the same class as the trained "
        f"network on {check.num_same_class} of {check.num_images} images, probabilities within "
        f"{check.largest_difference:.1g}{memory}."
    )
