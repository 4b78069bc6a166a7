import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from service.cli.main import main
from tests.service.support.held_child import predict_measurement
from tinytl.accounting.planner import REASONABLE_SLOWDOWN, plans, step_time
from tinytl.description.plan import Plan

SHARED = Path(os.environ.get("TINYFIT_SHARED", Path(__file__).parents[4] / "shared"))
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
    assert 500_000 < found["predicted_process_bytes"] < 2 * found["predicted_peak_bytes"]
    assert full["predicted_process_bytes"] is None  # the device trainer refuses it
    assert main(["price", str(tmp_path / "spec.json")]) == 0
    assert "predicted peak" in capsys.readouterr().out


def test_a_plan_is_given_in_the_spec_in_a_file_or_inline(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plan = asdict(Plan.whole(4, 1))
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    whole = answer(capsys, tmp_path, SPEC, "price")
    in_spec = answer(capsys, tmp_path, SPEC | {"plan": plan}, "price")
    assert in_spec["predicted_peak_bytes"] != whole["predicted_peak_bytes"]
    assert Plan.from_dict(in_spec["plan"]) == Plan.whole(4, 1)
    assert Plan.from_dict(whole["plan"]) == Plan.whole(4)
    for given in (str(file), json.dumps(plan)):
        assert answer(capsys, tmp_path, SPEC, "price", "--plan", given) == in_spec
    spec = tmp_path / "spec.json"
    for given in ('{"batch_size":', str(tmp_path / "nowhere.json"), '{"batch_size": 4}'):
        assert main(["price", str(spec), "--plan", given]) == 2
        assert "plan" in capsys.readouterr().err or "nowhere" in given


@pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"{PUBLISHED} is missing")
def test_published_accounting(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for case in json.loads(PUBLISHED.read_text())["cases"][::6]:
        found = answer(capsys, tmp_path, case, "price", "--accounting", "published")
        assert found == {key: case[key] for key in found}
        assert len(found) == 3


def test_measure_with_a_limit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    whole = answer(capsys, tmp_path, SPEC, "price")["predicted_peak_bytes"]
    limit = str(whole - 1)
    found = answer(capsys, tmp_path, SPEC, "measure", "--memory-limit", limit)
    assert 0 < found["measured_peak_bytes"] <= found["predicted_peak_bytes"] < whole
    assert found["predicted_peak_bytes"] == sum(found["breakdown"].values())
    assert found["storage_peak_bytes"] > 0
    assert Plan.from_dict(found["plan"]) in plans(4)
    assert found["step_seconds"] > 0
    assert "rss_growth_bytes" in found
    spec = tmp_path / "spec.json"
    assert main(["measure", str(spec), "--memory-limit", "1KB"]) == 2
    assert "smallest feasible" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["bias", "lite_residual+bias"])
def test_measure_without_a_plan_takes_the_leanest(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    monkeypatch.setattr("tinytl.measurement.measure.measure_in_fresh_process", predict_measurement)
    found = answer(capsys, tmp_path, SPEC | {"method": method}, "measure")
    plan = Plan.from_dict(found["plan"])
    for other in plans(4):
        if step_time(other) <= REASONABLE_SLOWDOWN * step_time(plans(4)[0]):
            given = json.dumps(asdict(other))
            price = answer(capsys, tmp_path, SPEC | {"method": method}, "price", "--plan", given)
            assert price["predicted_peak_bytes"] >= found["predicted_peak_bytes"]
    assert step_time(plan) <= REASONABLE_SLOWDOWN * step_time(plans(4)[0])


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
