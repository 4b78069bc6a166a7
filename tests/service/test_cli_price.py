import json
import os
from pathlib import Path
from typing import Any

import pytest

from service.cli import main

SHARED = Path(os.environ.get("TINYFIT_SHARED", Path(__file__).parents[3] / "shared"))
PUBLISHED = SHARED / "reference" / "published_memory.json"
SPEC = {
    "network": "ofa_proxyless_d234_e346_k357_w0.35",
    "method": "lite_residual+bias",
    "resolution": 32,
    "batch_size": 4,
    "num_classes": 3,
}


def answer(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: Any, command: str, *more: str
) -> dict[str, Any]:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(content))
    assert main([command, str(path), "--json", *more]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_peak_accounting(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = answer(capsys, tmp_path, SPEC, "price")
    assert found["predicted_peak_bytes"] == sum(found["breakdown"].values())
    full = answer(capsys, tmp_path, SPEC | {"method": "full"}, "price")
    assert full["predicted_peak_bytes"] > found["predicted_peak_bytes"]
    assert main(["price", str(tmp_path / "spec.json")]) == 0
    assert "predicted peak" in capsys.readouterr().out


@pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"{PUBLISHED} is missing")
def test_published_accounting(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for case in json.loads(PUBLISHED.read_text())["cases"][::6]:
        found = answer(capsys, tmp_path, case, "price", "--accounting", "published")
        assert found == {key: case[key] for key in found}
        assert len(found) == 3


def test_measure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = answer(capsys, tmp_path, SPEC, "measure")
    assert 0 < found["measured_peak_bytes"] <= found["predicted_peak_bytes"]
    assert found["step_seconds"] > 0
    assert "rss_growth_bytes" in found


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[]", "must be a JSON object"),
        (json.dumps(SPEC | {"method": "magic"}), "'magic'"),
        (json.dumps(SPEC | {"network": "resnet"}), "'resnet'"),
        (json.dumps(SPEC | {"batch_size": 0}), "batch_size"),
    ],
)
def test_bad_specs_exit_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, words: str
) -> None:
    path = tmp_path / "spec.json"
    path.write_text(content)
    for command in ("price", "measure"):
        assert main([command, str(path)]) == 2
        assert words in capsys.readouterr().err
    assert main(["price", str(tmp_path / "nowhere.json")]) == 2
