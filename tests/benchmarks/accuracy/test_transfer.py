"""The comparison of methods: its arithmetic, what is kept of it, and a small run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy import transfer
from benchmarks.accuracy.transfer_tables import Entry, best_by_validation, differences_of
from benchmarks.shared import completion
from benchmarks.shared.completion import complete
from benchmarks.shared.paired import paired_difference
from benchmarks.shared.runs import Budget, Outcome, Run
from search.supernets.registry import DEFAULT_SUPERNET, locate
from tinytl.description.method import Method
from tinytl.description.plan import Plan

SMALLEST = Budget(supernet=DEFAULT_SUPERNET, resolution=32, epochs=1, learning_rate=None)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two classes, six images each."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def run_on(dataset: Path, method: Method = Method.HEAD) -> Run:
    return Run(dataset=dataset, method=method, plan=Plan.whole(4), seed=0, budget=SMALLEST)


def outcome(test: float, validation: float = 0.5) -> Outcome:
    return Outcome(
        num_classes=2,
        test_accuracy=test,
        validation_accuracy=validation,
        train_loss=1,
        seconds=1,
    )


def entry(method: Method, rate: float, *outcomes: list[Outcome]) -> Entry:
    by_dataset = {Path(f"{number}.zip"): found for number, found in enumerate(outcomes)}
    return Entry(method=method, learning_rate=rate, outcomes=by_dataset)


def test_differences_are_paired_by_dataset_and_seed():
    found = paired_difference([[5, 7], [4, 10], [6, 6]], [[1, 1], [2, 4], [7, 7]])
    # by dataset 4 and 6, 2 and 6, -1 and -1: means 5, 4, -1; variances over seeds 2, 8, 0
    assert found.mean == pytest.approx(8 / 3)
    assert found.dataset_error == pytest.approx(((49 + 16 + 121) / 9 / 2 / 3) ** 0.5)
    assert found.seed_error == pytest.approx((10 / 3 / 6) ** 0.5)
    assert found.num_above == 2


def test_one_dataset_and_one_seed_tell_no_error():
    found = paired_difference([[0.75]], [[0.5]])
    assert (found.mean, found.dataset_error, found.seed_error) == (0.25, None, None)


def test_learning_rates_are_chosen_by_validation():
    slow = entry(Method.FULL, 1e-3, [outcome(0.9, 0.6)], [outcome(0.9, 0.8)])
    fast = entry(Method.FULL, 1e-2, [outcome(0.4, 0.9)], [outcome(0.4, 0.6)])
    ours = entry(Method.LITE_RESIDUAL_BIAS, 1e-2, [outcome(0.5)], [outcome(0.5)])
    assert best_by_validation([slow, fast, ours]) == [fast, ours]
    assert differences_of([fast, ours])[Method.FULL].mean == pytest.approx(0.1)
    assert differences_of([fast]) == {}


def test_a_run_is_named_by_the_content_of_its_dataset_and_supernet(photos: Path):
    run = run_on(photos)
    copy = shutil.copytree(photos, photos.parent / "copy" / "photos")
    assert run_on(copy).key() == run.key()
    (copy / "cat" / "0.png").rename(copy / "dog" / "6.png")
    other = shutil.copytree(copy, photos.parent / "other" / "photos")
    assert run_on(other).key() != run.key()

    content = locate(DEFAULT_SUPERNET, photos).path.read_bytes()
    supernets = []
    for name, byte in (("same", content[-1:]), ("retrained", b"\x01")):
        (photos.parent / name).mkdir()
        path = photos.parent / name / f"{DEFAULT_SUPERNET}.safetensors"
        path.write_bytes(content[:-1] + byte)
        supernets.append(replace(run, budget=replace(SMALLEST, supernet=str(path))))
    assert len({supernet.key() for supernet in supernets}) == 2


def test_the_methods_own_learning_rate_is_one_like_another(photos: Path):
    run = run_on(photos)
    keys = {
        replace(run, budget=replace(SMALLEST, learning_rate=rate)).key() for rate in (4e-3, 5e-3)
    }
    assert run.key() in keys
    assert len(keys) == 2


def test_what_is_finished_is_not_repeated(photos: Path, monkeypatch: pytest.MonkeyPatch):
    wide = run_on(photos)
    narrow = replace(wide, plan=replace(wide.plan, optimizer_bits=8, trained_bits=16))
    results = photos.parent / "results.json"
    first = complete([wide], results)
    found = complete([wide, narrow], results)
    assert found[wide] == first[wide]
    assert found[wide].train_loss != found[narrow].train_loss

    monkeypatch.setattr(completion, "train_run", lambda *_: pytest.fail("trained again"))
    assert complete([narrow, wide], results) == found


@pytest.mark.slow
def test_a_comparison_of_methods(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    results = photos.parent / "new" / "results.json"
    command = f"transfer {photos} --methods head,lite_residual+bias --learning-rates"
    options = "head=0.004,0.01 --epochs 1 --seeds 1 --resolution 32 --processes 2 --json"
    monkeypatch.setattr(
        "sys.argv", [*command.split(), *options.split(), "--results", str(results)]
    )
    transfer.main()
    printed = capsys.readouterr().out
    answer = json.loads(printed.splitlines()[-1])
    head, ours = answer["rows"]
    assert (head["method"], ours["method"]) == ("head", "lite_residual+bias")
    assert (
        head["measured_peak_bytes"] < ours["measured_peak_bytes"] <= ours["predicted_peak_bytes"]
    )
    assert [tried["learning_rate"] for tried in answer["tried"]] == [0.004, 0.01, 0.006]
    assert answer["differences"]["head"]["mean"] == pytest.approx(
        ours["test_accuracy"] - head["test_accuracy"]
    )
    assert f"| photos | {100 * head['test_accuracy']:.1f} |" in printed

    for name in ("train_run", "measure_in_fresh_process"):
        monkeypatch.setattr(completion, name, lambda *_, name=name: pytest.fail(f"{name} again"))
    transfer.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == answer
