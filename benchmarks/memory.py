"""Training memory by method: the paper's accounting, our prediction, and what is measured.

    python -m benchmarks.memory [--json]

ProxylessNAS-Mobile at 224 px, batch 8, 102 classes (TinyTL paper, table 2), each method with the
whole batch at once and one image at a time, each in a fresh process.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from benchmarks.machine import describe_machine
from search.spec import PROXYLESS_MOBILE, parse_spec
from tinytl.measure import measure_in_fresh_process
from tinytl.published import published_memory
from tinytl.trainable import Method
from tinytl.units import format_bytes

_BATCH_SIZE = 8
_MICRO_BATCH_SIZES = (8, 1)
_RESOLUTION = 224
_NUM_CLASSES = 102


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    print("| method | micro-batch | published | predicted | measured | RSS growth | step |")
    print("|---|---|---|---|---|---|---|")
    rows = [
        _row(method, micro_batch_size)
        for method in Method
        for micro_batch_size in _MICRO_BATCH_SIZES
    ]
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))


def _row(method: Method, micro_batch_size: int) -> dict[str, Any]:
    spec = parse_spec(
        {
            "network": PROXYLESS_MOBILE,
            "method": method.value,
            "resolution": _RESOLUTION,
            "batch_size": _BATCH_SIZE,
            "micro_batch_size": micro_batch_size,
            "num_classes": _NUM_CLASSES,
            "frozen_param_bits": 32 if method is Method.FULL else 8,
        }
    )
    published = published_memory(
        spec.network,
        method,
        resolution=_RESOLUTION,
        batch_size=_BATCH_SIZE,
        frozen_param_bits=spec.frozen_param_bits,
    )
    found = measure_in_fresh_process(spec.network, method, spec.plan, _RESOLUTION)
    rss_growth = found.rss_growth_bytes
    cells = (
        method.value,
        str(micro_batch_size),
        format_bytes(published.total_bytes),
        format_bytes(found.predicted_peak_bytes),
        format_bytes(found.measured_peak_bytes),
        "unknown" if rss_growth is None else format_bytes(rss_growth),
        f"{found.step_seconds:.2f} s",
    )
    print("| " + " | ".join(cells) + " |", flush=True)
    return {
        "method": method.value,
        "micro_batch_size": micro_batch_size,
        "published_bytes": published.total_bytes,
        **asdict(found),
    }


if __name__ == "__main__":
    main()
