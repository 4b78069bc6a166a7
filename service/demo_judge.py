"""The demo's judge: `python -m service.demo_judge BUNDLE FOLDER` trusts nothing but the bundle.

Predicts every image of FOLDER/*/test, measures a training of the loaded network, and prints both.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tinytl
from tinytl.measurement.measure import measure_in_fresh_process


def main(bundle: Path, folder: Path) -> None:
    model = tinytl.load(bundle)
    num_right = num_images = 0
    for path in sorted(folder.glob("*/test/*/*")):
        num_right += model.predict(path).label == path.parent.name
        num_images += 1
    measured = measure_in_fresh_process(
        model.network.config, model.method, model.plan, model.resolution
    )
    found = {
        "test_accuracy": num_right / num_images,
        "num_images": num_images,
        "measured_peak_bytes": measured.measured_peak_bytes,
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
