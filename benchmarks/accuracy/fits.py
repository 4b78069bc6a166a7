"""How a picture becomes a square: crop, pad or squash, on real photos of several shapes.

    python -m benchmarks.fits DATASET.zip [DATASET.zip ...] [--wide DATASET.zip ...] [--json]

A zip holds train/class/image and test/class/image. Each image becomes a square by each fit; the
bundled supernet's largest subnet, as it was pretrained, gives features, and a logistic regression
learns the classes from them: no luck of a training is in it. The figure is the test accuracy, the
mean over two resolutions and three strengths of regularization. --wide cuts photos to 16:9 first,
at a random height. Needs scikit-learn (`pip install 'tinyfit[demo]'`).
"""

from __future__ import annotations

import argparse
import io
import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from search.elastic.supernet import load_supernet
from search.supernets.registry import DEFAULT_SUPERNET
from service.datasets.fit import choose_fit, crop_loss
from tinytl.engine.ops.normalize import normalize
from tinytl.squares import FITS, Fit, Squaring, to_square

_RESOLUTIONS = (64, 96)
_STRENGTHS = (0.003, 0.01, 0.03)
_BATCH = 64
_WIDE = 9 / 16


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("datasets", type=Path, nargs="*", metavar="ZIP")
    parser.add_argument("--wide", type=Path, nargs="*", default=[], metavar="ZIP")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    network = load_supernet(DEFAULT_SUPERNET, Path("~/.cache/tinyfit").expanduser()).network
    network.eval()
    network.set_max_net()
    found = {}
    for path, is_wide in (
        *((p, False) for p in options.datasets),
        *((p, True) for p in options.wide),
    ):
        name = path.stem + (" (16:9)" if is_wide else "")
        photos = list(_photos(path, is_wide=is_wide))
        loss = float(np.mean([crop_loss(*image.size) for _, _, image in photos]))
        accuracy = {fit: _accuracy(network, photos, fit) for fit in FITS}
        found[name] = {"crop_loss": loss, **accuracy, "chosen": choose_fit(loss)}
        shown = "  ".join(f"{fit} {value:.1%}" for fit, value in accuracy.items())
        print(f"{name:<22} a crop loses {loss:.0%}  {shown}  chosen: {choose_fit(loss)}")
    if options.json:
        print(json.dumps(found))


def _photos(path: Path, *, is_wide: bool) -> Iterator[tuple[str, str, Image.Image]]:
    """Split, class and picture."""
    generator = random.Random(0)
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith("/"):
                continue
            split, label, _ = name.split("/")[-3:]
            image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            if is_wide:
                image = image if image.width >= image.height else image.rotate(90, expand=True)
                height = round(image.width * _WIDE)
                top = generator.randint(0, image.height - height)
                image = image.crop((0, top, image.width, top + height))
            yield split, label, image


def _accuracy(network: nn.Module, photos: list[tuple[str, str, Image.Image]], fit: Fit) -> float:
    accuracies = []
    for resolution in _RESOLUTIONS:
        squares = [to_square(image, resolution, Squaring(fit=fit)) for _, _, image in photos]
        features = _features(network, torch.from_numpy(np.stack(squares)))
        is_train = np.array([split == "train" for split, _, _ in photos])
        labels = np.array([label for _, label, _ in photos])
        scaler = StandardScaler().fit(features[is_train])
        scaled = scaler.transform(features)
        for strength in _STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=400)
            model.fit(scaled[is_train], labels[is_train])
            accuracies.append(model.score(scaled[~is_train], labels[~is_train]))
    return float(np.mean(accuracies))


@torch.no_grad()
def _features(network: nn.Module, images: Tensor) -> np.ndarray:
    """What the classifier gets: (N, channels)."""
    found: list[Tensor] = []
    classifier = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    hook = classifier.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    try:
        for batch in images.split(_BATCH):
            network(normalize(batch))
    finally:
        hook.remove()
    return torch.cat(found).flatten(1).numpy()


if __name__ == "__main__":
    main()
