"""Kendall's tau, the rows made of it, and a ranking from beginning to end."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy import ranking
from benchmarks.accuracy.calibration import Calibrated, calibrate, rows_of
from benchmarks.accuracy.ranking import Scored, row_of, taus_of, told_right
from benchmarks.accuracy.subnet_trainings import Trained, Training
from benchmarks.accuracy.subnets import Setting, adapted_to
from benchmarks.shared.rank_correlation import agreement, kendall_tau
from search.adaptation.adapt import AdaptSettings
from search.adaptation.score import score
from search.space.lite_residual_sizes import LARGEST, NONE_OR_ANY


def test_tau_counts_pairs_and_ties():
    # The first is the example of scipy.stats.kendalltau.
    assert kendall_tau([12, 2, 1, 12, 2], [1, 4, 7, 1, 0]) == pytest.approx(-0.4714045208)
    assert kendall_tau([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)
    assert kendall_tau([1, 2, 3], [5, 5, 5]) == 0


def test_the_interval_narrows_with_the_number_of_subnets():
    rng = np.random.default_rng(0)

    def interval(count: int) -> tuple[float, float]:
        truth = rng.normal(size=count)
        found = agreement((truth.tolist(), (truth + rng.normal(size=count)).tolist()))
        assert found.low < found.tau < found.high
        return found.low, found.high

    few, many = interval(10), interval(80)
    assert many[1] - many[0] < (few[1] - few[0]) / 2


def test_the_mean_of_several_datasets_is_surer_than_each():
    rng = np.random.default_rng(1)
    pairs = []
    for _ in range(6):
        truth = rng.normal(size=12)
        pairs.append((truth.tolist(), (truth + rng.normal(size=12)).tolist()))
    alone = [agreement(pair) for pair in pairs]
    together = agreement(*pairs)
    assert together.tau == pytest.approx(np.mean([each.tau for each in alone]))
    assert together.high - together.low < min(each.high - each.low for each in alone)


def test_a_row_weighs_images_and_tells_what_choosing_by_score_gains():
    scored = Scored(
        accuracies=[0.5, 0.6, 0.6],
        losses=[0.1, 0.2, 0.3],
        plain=[0.5, 0.6, 0.8],
        macs=[30, 20, 10],
        num_validation_images=100,
        num_test_images=300,
        adapt_seconds=1,
        score_seconds=1,
    )
    test_accuracies = ((0.4, 0.8, 0.6), (0.6, 0.6, 0.8))
    trained = [
        [Trained(validation_accuracy=0, test_accuracy=each, seconds=1) for each in of_seed]
        for of_seed in test_accuracies
    ]
    assert scored.ranks == [0, 2, 1]
    again = replace(scored, accuracies=[0.8, 0.5, 0.6])
    row = row_of(scored, again, trained)
    np.testing.assert_allclose(row["accuracies"], np.multiply(test_accuracies, 0.75))
    tau = {pair: found.tau for pair, (found,) in taus_of([row]).items()}
    assert tau["score, seed 0"] == 1
    assert tau["accuracy alone, mean of seeds"] == 1
    assert tau["loss alone, mean of seeds"] == pytest.approx(-2 / 6**0.5)
    assert tau["score, seed 1"] == tau["seed 0, seed 1: the ceiling"] == 0
    assert tau["score, score after another adaptation"] == -1
    assert tau["without mirror images, mean of seeds on test images"] == pytest.approx(2 / 6**0.5)
    assert tau["multiply-accumulates, mean of seeds"] == pytest.approx(-2 / 6**0.5)
    assert (row["chosen_accuracy"], row["best_accuracy"]) == pytest.approx((0.525, 0.525))
    assert row["mean_accuracy"] == pytest.approx(0.475)


def test_of_how_many_subnets_the_better_kind_is_told_right():
    """Without and with lite residuals, one after the other; equal ones count half."""
    accuracies = [0.5, 0.6, 0.7, 0.6, 0.5, 0.5]
    assert told_right(accuracies, accuracies) == pytest.approx(2.5 / 3)
    assert told_right([0, 1, 2, 3, 4, 5], accuracies) == pytest.approx((1 + 0 + 0.5) / 3)
    assert told_right([1, 0, 0, 1, 0, 1], accuracies) == pytest.approx(0.5 / 3)


def test_a_mixed_row_tells_the_kinds_apart():
    scored = Scored(
        accuracies=[0.5, 0.6, 0.7, 0.6],
        losses=[0.1] * 4,
        plain=[0.5] * 4,
        macs=[1, 2, 3, 4],
        num_validation_images=10,
        num_test_images=10,
        adapt_seconds=1,
        score_seconds=1,
        has_modules=[False, True, False, True],
    )
    trained = [
        [Trained(validation_accuracy=each, test_accuracy=each, seconds=1) for each in of_seed]
        for of_seed in ((0.4, 0.8, 0.6, 0.9), (0.4, 0.8, 0.6, 0.5))
    ]
    row = row_of(scored, scored, trained)
    assert row["kinds"] == pytest.approx(
        {
            "biases alone: accuracy": 0.5,
            "biases alone: score": 0.6,
            "lite residuals: accuracy": 0.75,
            "lite residuals: score": 0.6,
            "better kind told right by the score": 0.5,
            "better kind told right by another training": 0.5,
        }
    )
    assert row["pairs"]["biases alone: score, mean of seeds"] == ([0, 2], [0.4, 0.6])


def test_a_mixed_sample_has_each_subnet_without_and_with_lite_residuals(setting: Setting):
    mixed = replace(setting, adaptation=AdaptSettings(lite_residual_sizes=NONE_OR_ANY))
    candidates = mixed.candidates(2)
    assert [each.lite_residual is None for each in candidates] == [True, False] * 2
    assert candidates[1] == replace(candidates[0], lite_residual=LARGEST) == setting.candidate(0)
    assert setting.candidates(2) == candidates[1::2]


def test_calibrations_are_compared_with_the_most_images():
    few = Calibrated(num_images=16, accuracies=[0.2, 0.1, 0.3], seconds=1)
    many = Calibrated(num_images=64, accuracies=[0.4, 0.5, 0.6], seconds=2)
    first, last = rows_of([few, many])
    assert (first["num_images"], first["accuracy"]) == (16, pytest.approx(0.2))
    assert first["tau"]["tau"] == pytest.approx(1 / 3)
    assert last["tau"]["tau"] == 1


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    rng = np.random.default_rng(0)
    for name, brightest in (("night", 160), ("day", 256)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, brightest, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return Setting(
        dataset=tmp_path / "photos",
        resolutions=(32,),
        adaptation=AdaptSettings(steps=2, batch_size=4),
    )


def test_a_digest_tells_what_decides_the_outcome(setting: Setting):
    others = [
        replace(setting, resolutions=(32, 48)),
        replace(setting, batch_size=4),
        replace(setting, adaptation=AdaptSettings(steps=3, batch_size=4)),
    ]
    assert len({each.digest for each in (setting, *others)}) == 4
    assert replace(setting).digest == setting.digest


def test_subnets_are_scored_and_calibrated_as_in_a_job(setting: Setting):
    with adapted_to(setting) as adapted:
        candidates = [setting.candidate(number) for number in range(2)]
        assert candidates[0].subnet != candidates[1].subnet
        found = calibrate(setting, adapted, num_subnets=2, num_images=16)
        scores = [
            score(adapted.supernet, each, adapted.store, horizontal_flip=False).accuracy
            for each in candidates
        ]
    assert len(adapted.store.split("train")) == 16
    assert found.accuracies == scores


@pytest.mark.slow
def test_a_ranking_goes_on_where_it_was(
    setting: Setting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    results = tmp_path / "results.json"
    command = f"ranking {setting.dataset} --results {results} --resolutions 32 --adapt-steps 2"
    command += " --subnets 2 --epochs 1 --processes 1 --json"
    monkeypatch.setattr(sys, "argv", command.split())
    ranking.main()
    first = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert np.shape(first[0]["accuracies"]) == (2, 2)

    kept = json.loads(results.read_text())
    del kept[next(key for key in kept if "subnet 1 seed 1" in key)]
    results.write_text(json.dumps(kept))
    repeated: list[Training] = []

    def in_this_process(trainings: Sequence[Training], _: int) -> Iterator[Trained]:
        repeated.extend(trainings)
        return map(Training.run, trainings)

    monkeypatch.setattr(ranking, "side_by_side", in_this_process)
    ranking.main()
    again = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [training.settings.seed for training in repeated] == [1]
    for name in ("ranks", "accuracies", "pairs"):
        assert again[0][name] == first[0][name]
