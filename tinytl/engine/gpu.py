"""A GPU as scoring and training use it."""

from __future__ import annotations

import os

import torch


def repeatable_gpu() -> torch.device:
    """The GPU. From now on this process does the same work there to the same bits, as far as torch
    can: no algorithm whose order of summing varies, none chosen by how fast it happened to run,
    and no TF32, which multiplies with 10 bits of mantissa.

    To be called before anything else is done there: CUDA's matrix products read their part of it
    once.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda")
