"""What adapting all sizes costs: the rows, and a comparison from beginning to end."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy import elastic_sizes
from benchmarks.accuracy.elastic_sizes import row_of
from search.space.lite_residual_sizes import SIZES


def test_differences_are_paired_by_seed():
    row = row_of([0.50, 0.60], [0.52, 0.66])
    assert row["difference"] == pytest.approx(-0.04)
    assert row["difference_error"] == pytest.approx(0.04 / math.sqrt(2) / math.sqrt(2))
    assert row_of([0.5], [0.6])["difference_error"] is None


def test_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    rng = np.random.default_rng(0)
    for name, brightest in (("night", 160), ("day", 256)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, brightest, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    command = f"elastic_sizes {tmp_path / 'photos'} --resolutions 32 --adapt-steps 1 --subnets 1"
    monkeypatch.setattr(sys, "argv", f"{command} --seeds 1 --json".split())
    monkeypatch.setattr(elastic_sizes, "SIZES", SIZES[:2])
    elastic_sizes.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["size"] for row in rows] == ["2 groups, kernel 3", "2 groups, kernel 5"]
    assert all(0 <= accuracy <= 1 for row in rows for accuracy in row["of_all"] + row["of_one"])
