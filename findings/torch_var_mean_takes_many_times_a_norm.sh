#!/usr/bin/env bash
# torch 2.13.0 (CPU build), one thread: statistics of the channels of a feature map, as batch norm
# has them, found by torch.var_mean(x, (0, 2, 3)).
#
# Expected: about the time of reading the map once or twice, as for its mean and its norm, or of
# what batch norm itself does to find them.
# Seen: on contiguous maps of 16 x 96 x 112 x 112 some twenty times as long as mean and
# torch.linalg.vector_norm over (2, 3) together, which with sums of a few numbers give the same
# variance, and several times as long as torch.batch_norm_update_stats. It is not the strides: over
# (2, 3) alone, whose values lie together, var_mean takes as long.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "numpy==2.4.6"

"$folder/venv/bin/python" - <<'PY'
import sys
import time

import torch

torch.set_num_threads(1)
x = torch.randn(16, 96, 112, 112, generator=torch.Generator().manual_seed(0)) + 3


def by_norm():
    mean = x.mean((2, 3)).double().mean(0)
    square = torch.linalg.vector_norm(x, dim=(2, 3)).double().square().mean(0) / (112 * 112)
    return square - mean.square()


def seconds(function):
    function()
    taken = []
    for _ in range(7):
        started = time.process_time()
        function()
        taken.append(time.process_time() - started)
    return sorted(taken)[3]


ways = {
    "var_mean over (0, 2, 3)": lambda: torch.var_mean(x, (0, 2, 3), correction=0),
    "var_mean over (2, 3)": lambda: torch.var_mean(x, (2, 3), correction=0),
    "batch_norm_update_stats": lambda: torch.batch_norm_update_stats(x, None, None, 0.1),
    "mean and norm over (2, 3)": by_norm,
}
found = {name: seconds(way) for name, way in ways.items()}
print("torch", torch.__version__)
for name, taken in found.items():
    print(f"{name}: {1000 * taken:.1f} ms")
across, along, stats, norm = found.values()
is_same = torch.allclose(by_norm().float(), torch.var_mean(x, (0, 2, 3), correction=0)[0], rtol=1e-4)
sys.exit(0 if is_same and across > 5 * norm and along > 5 * norm and across > 2 * stats else 1)
PY
