"""Classify images with the model beside this file: needs onnxruntime, NumPy and Pillow alone.

    python predict.py photo.jpg [more.jpg ...] [--model model.int8.onnx] [--top 3] [--json]

Images are seen as they were in the model's own test: upright, RGB, squared as model.json says,
and resized in whole numbers, to the pixel.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

Pixels = NDArray[np.uint8]

_TURNS: dict[Any, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets an image of such an Exif orientation upright."""
_PADDING = (124, 116, 104)
_WHITE, _BLACK = (255, 255, 255, 255), (0, 0, 0, 255)
_SAMPLE, _FAINT = (64, 64), 24.0


class Classifier:
    """A model and the classes that it tells apart."""

    def __init__(self, model: Path) -> None:
        """model: an .onnx file with its model.json beside it."""
        described = json.loads((model.parent / "model.json").read_text(encoding="utf-8"))
        self.classes: list[str] = described["classes"]
        self.preprocessing: dict[str, Any] = described["preprocessing"]
        self._session = open_session(model)

    def probabilities(self, path: Path) -> NDArray[np.float32]:
        """Of every class, (classes,), for an image file."""
        image = preprocess(path, self.preprocessing)[None]
        (found,) = run(self._session, image)
        probabilities: NDArray[np.float32] = found
        return probabilities


def open_session(model: Path | bytes, *, num_threads: int = 0) -> onnxruntime.InferenceSession:
    """num_threads 0: as many as there are cores.

    Without the memory pattern: with it onnxruntime holds from the second run on all maps of a run
    in one more block, beside those of the first. Its default order of execution widens each 8-bit
    weight right before it is used, the priority-based one all at once. A file of 8-bit weights, by
    its name, is not laid out anew for this processor: that doubles the lite residuals' weights,
    and gains nothing where most weights are widened in each run.
    """
    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = False
    if isinstance(model, Path) and ".int8" in model.suffixes:
        extended = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.graph_optimization_level = extended
    options.intra_op_num_threads = num_threads
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, images: Pixels) -> NDArray[np.float32]:
    """Probabilities (N, classes) of images (N, 3, resolution, resolution)."""
    (found,) = session.run(None, {session.get_inputs()[0].name: images})
    probabilities: NDArray[np.float32] = found
    return probabilities


def preprocess(path: Path, preprocessing: dict[str, Any]) -> Pixels:
    """uint8 (3, resolution, resolution) of an image file."""
    image_size, resolution = preprocessing["image_size"], preprocessing["resolution"]
    with Image.open(path) as image:
        image.draft("RGB", (2 * image_size, 2 * image_size))
        return resize(to_square(image, preprocessing), resolution)


def to_square(image: Image.Image, preprocessing: dict[str, Any]) -> Pixels:
    """Upright RGB square: uint8 (3, image_size, image_size)."""
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        raise ValueError("it has 32 bits a pixel; save it with 8 or 16")
    image.load()
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # damaged metadata can raise anything
        turn = None
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I"):  # 16-bit greyscale: keep the high byte
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
    is_dropped = preprocessing.get("transparency", "dropped") == "dropped"
    image = image.convert("RGB") if is_dropped else _visible(image)
    size = (preprocessing["image_size"],) * 2
    fit = preprocessing.get("fit", "crop")
    if fit == "squash":
        square = image.resize(size, Image.Resampling.BICUBIC)
    elif fit == "pad":
        square = ImageOps.pad(image, size, Image.Resampling.BICUBIC, color=_PADDING)
    else:
        square = ImageOps.fit(image, size, Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _visible(image: Image.Image) -> Image.Image:
    """What is transparent is laid on white; on black where all the rest is white itself."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    sample = np.asarray(image.resize(_SAMPLE, Image.Resampling.BOX), dtype=np.float64)
    alpha, darkness = sample[..., 3], 255 - sample[..., :3].mean(-1)
    is_faint = (alpha * darkness).sum() < _FAINT * alpha.sum()
    ground = Image.new("RGBA", image.size, _BLACK if is_faint else _WHITE)
    return Image.alpha_composite(ground, image).convert("RGB")


def resize(square: Pixels, resolution: int) -> Pixels:
    """Bilinear with antialiasing, as torch resizes uint8: with 16-bit weights, columns first and
    each result rounded."""
    if square.shape[1] == resolution:
        return square
    weights, one = _resize_weights(square.shape[1], resolution)
    columns = np.floor((square @ weights.T) / one + 0.5).clip(0, 255)
    resized: Pixels = np.floor((weights @ columns) / one + 0.5).clip(0, 255).astype(np.uint8)
    return resized


def _resize_weights(size: int, resolution: int) -> tuple[NDArray[np.float64], int]:
    """Whole numbers (resolution, size), and the one that stands for 1."""
    scale = size / resolution
    support = max(scale, 1.0)
    centers = (scale * (np.arange(resolution) + 0.5))[:, None]
    places = np.arange(size)
    is_near = (places >= np.floor(centers - support + 0.5)) & (
        places < np.floor(centers + support + 0.5)
    )
    weights = np.maximum(0, 1 - np.abs((places - centers + 0.5) / support)) * is_near
    weights /= weights.sum(1, keepdims=True)
    bits = 0
    while bits < 22 and int(0.5 + weights.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    return np.floor(weights * (1 << bits) + 0.5), 1 << bits


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--model", type=Path, default=Path(__file__).parent / "model.onnx")
    parser.add_argument("--top", type=int, default=3, help="classes to show (3)")
    parser.add_argument("--json", action="store_true", help="every class, one object a line")
    options = parser.parse_args()
    classifier, status = Classifier(options.model), 0
    for path in options.images:
        try:
            found = classifier.probabilities(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            _say(f"{path}: can't be read as an image: {error}", sys.stderr)
            status = 1
            continue
        order = sorted(range(len(found)), key=lambda index: -found[index])
        if options.json:
            shares = {classifier.classes[index]: float(found[index]) for index in order}
            _say(json.dumps({"image": str(path), "probabilities": shares}), sys.stdout)
        else:
            shown = [f"{classifier.classes[i]} {found[i]:.1%}" for i in order[: options.top]]
            _say(f"{path}: {', '.join(shown)}", sys.stdout)
    return status


def _say(line: str, stream: Any) -> None:
    stream.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
