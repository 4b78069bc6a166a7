"""The rows of the comparison of precisions, and the runs behind them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import runs
from benchmarks.precision import rows_of
from benchmarks.runs import Budget, Outcome, Run, complete
from tinytl.plan import Plan
from tinytl.trainable import Method


def test_variants_are_compared_with_32_bits_of_the_same_seed():
    def outcomes(*accuracies: float) -> list[Outcome]:
        return [
            Outcome(test_accuracy=a, validation_accuracy=0, train_loss=1 - a, seconds=1)
            for a in accuracies
        ]

    first, second, third = rows_of(
        "photos", [outcomes(0.5, 0.75), outcomes(0.75, 0.5), outcomes(0.5, 0.5)]
    )
    assert [row["variant"] for row in (first, second, third)] == ["32/32", "8/32", "8/16"]
    assert (first["test_accuracy"], first["seed_spread"], first["train_loss"]) == (
        0.625,
        0.25,
        0.375,
    )
    assert first["difference_by_seed"] == [0, 0]
    assert second["difference_by_seed"] == [0.25, -0.25]
    assert third["difference_by_seed"] == [0, -0.25]


def test_finished_runs_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    wide = Run(
        dataset=tmp_path / "photos",
        method=Method.HEAD,
        plan=Plan.whole(4),
        seed=0,
        budget=Budget(
            supernet="ofa_proxyless_d234_e346_k357_w0.35_tinyimagenet64",
            resolution=32,
            epochs=1,
            learning_rate=None,
        ),
    )
    narrow = replace(wide, plan=replace(wide.plan, optimizer_bits=8, trained_bits=16))
    results = tmp_path / "results.json"
    found = complete([wide, narrow], results)
    assert found[wide].train_loss != found[narrow].train_loss

    monkeypatch.setattr(runs, "_train", lambda run, store: pytest.fail("trained again"))
    assert complete([narrow, wide], results) == found
