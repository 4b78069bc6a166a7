"""What a job's stages see of pictures that are no squares: its `fit`, whoever looks."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.adaptation.views import evaluation_batch
from search.supernets.registry import DEFAULT_SUPERNET
from service.contract.requests import JobRequest, JobSettings
from service.datasets.fit import with_fit
from service.datasets.looks import TILE
from service.datasets.store import get_contact_sheet, import_dataset
from service.record.claims import Claim
from service.record.db.database import Database
from service.record.db.models import Dataset
from service.record.jobs import create_job
from service.settings import Settings
from service.work.job.evaluation import evaluate
from service.work.job.job_run import JobRun
from service.work.job.stages import ingest
from tests.service.work.runs import run_of
from tinytl.onnx_export.predict import preprocess
from tinytl.squares import FITS, Fit, Squaring, load_image
from tinytl.training.data import SPLITS

RESOLUTIONS = (32, 48)
WIDE = (160, 90)
PER_CLASS = 6
MOST_DISTANCE = 12.0
"""Mean difference, of 255, that JPEG makes; another fit makes more."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos of 16:9 in every split: blurred noise, of other colours at the left and right."""
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for split in SPLITS:
        for label, name in enumerate(("cat", "dog")):
            (folder / split / name).mkdir(parents=True)
            for number in range(PER_CLASS):
                pixels = rng.integers(0, 128, (9, 16, 3), dtype=np.uint8)
                pixels[:, :4, label], pixels[:, -4:, 2] = 255, 255
                photo = Image.fromarray(pixels).resize(WIDE, Image.Resampling.BICUBIC)
                photo.save(folder / split / name / f"{number}.png")
    return folder


@pytest.fixture
def dataset(photos: Path, settings: Settings, database: Database) -> Dataset:
    return import_dataset(photos, settings=settings, database=database)[0]


@pytest.fixture
def run_with(
    dataset: Dataset, settings: Settings, database: Database, claim: Callable[[], Claim]
) -> Callable[[str], JobRun]:
    def make(fit: str) -> JobRun:
        request = JobRequest(
            dataset=dataset.id,
            memory_limit=24_000_000,
            supernet=DEFAULT_SUPERNET,
            settings=JobSettings.model_validate({"fit": fit, "resolutions": RESOLUTIONS}),
        )
        job_id = create_job(database, with_fit(request, dataset))[0].id
        return run_of(settings, database, claim(), job_id)

    return make


def squares(photos: Path, split: str, fit: Fit) -> np.ndarray:
    """Of a split's photos, in the order of classes and names."""
    paths = sorted((photos / split).rglob("*.png"))
    return np.stack([load_image(path, RESOLUTIONS[-1], Squaring(fit=fit)) for path in paths])


def in_order(images: np.ndarray) -> np.ndarray:
    return images[np.lexsort(images.reshape(len(images), -1).T)]


@pytest.mark.parametrize("fit", FITS)
def test_all_splits_are_squared_as_the_fit_says(
    run_with: Callable[[str], JobRun], photos: Path, fit: Fit
) -> None:
    run = run_with(fit)
    store = ingest(run)
    assert store.squaring == run.squaring == Squaring(fit=fit)
    for name in SPLITS:
        seen = store.split(name).batch(range(2 * PER_CLASS), RESOLUTIONS[-1]).numpy()
        np.testing.assert_array_equal(in_order(seen), in_order(squares(photos, name, fit)))
    others = [squares(photos, "train", other) for other in FITS if other != fit]
    assert all((squares(photos, "train", fit) != other).any() for other in others)


def test_a_fit_that_is_left_open_is_that_of_the_report(
    run_with: Callable[[str], JobRun], dataset: Dataset
) -> None:
    assert dataset.report is not None
    run = run_with("auto")
    assert ingest(run).squaring.fit == dataset.report["fit"] == "squash"


@pytest.mark.parametrize("fit", FITS)
def test_scores_mistakes_and_exports_show_these_squares(
    run_with: Callable[[str], JobRun], photos: Path, fit: Fit
) -> None:
    """At a resolution below the stored one: candidates' scores, what the evaluation's pictures are
    made of, and what the exported script makes of the files by itself."""
    store, resolution = ingest(run_with(fit)), RESOLUTIONS[0]
    seen = {"image_size": RESOLUTIONS[-1], "resolution": resolution, "fit": fit}
    paths = sorted((photos / "val").rglob("*.png"))
    expected = np.stack([preprocess(path, seen) for path in paths])
    scored = evaluation_batch(store.split("val"), range(2 * PER_CLASS), resolution).numpy()
    np.testing.assert_array_equal(in_order(scored), in_order(expected))
    test = store.split("test")
    all_wrong = np.eye(2, dtype=np.float32)[1 - np.asarray(test.labels)]
    _, pictures = evaluate(test, store.classes, all_wrong)
    shown = [np.asarray(Image.open(io.BytesIO(picture))) for picture in pictures.values()]
    stored = squares(photos, "test", fit)
    assert len(shown) == 2 * PER_CLASS
    for picture in shown:
        small = np.asarray(
            Image.fromarray(picture).resize((RESOLUTIONS[-1],) * 2, Image.Resampling.BOX),
            dtype=int,
        )
        distances = np.abs(stored.transpose(0, 2, 3, 1) - np.asarray(small, dtype=int)).mean(
            (1, 2, 3)
        )
        assert distances.min() < MOST_DISTANCE


@pytest.mark.parametrize("fit", FITS)
def test_the_contact_sheet_shows_these_squares(
    dataset: Dataset, database: Database, photos: Path, fit: Fit
) -> None:
    sheet = Image.open(io.BytesIO(get_contact_sheet(database, dataset.id, fit)))
    tile = np.asarray(sheet.crop((0, 0, TILE, TILE)), dtype=int)
    cats = [load_image(path, TILE, Squaring(fit=fit)) for path in photos.rglob("cat/*.png")]
    distances = [np.abs(tile - cat.transpose(1, 2, 0)).mean() for cat in cats]
    assert min(distances) < MOST_DISTANCE
    others = [
        np.abs(tile - load_image(path, TILE, Squaring(fit=other)).transpose(1, 2, 0)).mean()
        for path in photos.rglob("cat/*.png")
        for other in FITS
        if other != fit
    ]
    assert min(others) > MOST_DISTANCE
