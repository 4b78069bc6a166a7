"""`tinyfit export` and `tinyfit export-study`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from search.space.architecture import SupernetSpec
from search.supernets.registry import DEFAULT_SUPERNET
from service.api.app import create_app
from service.cli.main import main
from service.record.db.database import Database
from service.record.db.models import Job, Trial
from service.settings import AUTO_SUPERNET, Settings
from tests.dashboard.records import LIMIT_BYTES, Records
from tests.service.api.live import served
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.engine.network import build_network
from tinytl.training.bundle import save_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    spec = SupernetSpec.parse("ofa_proxyless_d234_e346_k357_w0.35")
    network = build_network(spec.network_config(spec.smallest, 2), Method.BIAS)
    path = tmp_path / "model.tinyfit.zip"
    save_bundle(
        path,
        network,
        resolution=32,
        image_size=48,
        plan=Plan.whole(4),
        classes=["circle", "square"],
        report={},
        card="",
    )
    return path


def test_a_bundle_is_exported(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "exported"
    output.mkdir()
    (output / "mine.txt").write_text("stays")
    assert main(["export", str(bundle), "--output", str(output), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    for check in answer["models"].values():
        assert check["num_same_class"] == check["num_images"] > 0
        assert check["largest_difference"] < 1e-4
    assert {path.name for path in output.iterdir()} == {
        *("model.onnx", "model.int8.onnx", "model.json", "predict.py", "README.md", "mine.txt")
    }


def test_what_can_not_be_exported(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path / "none.zip"), "--output", str(tmp_path / "x")]) == 2
    assert "none.zip" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert main(["export", str(bundle), "--output", str(bundle)]) == 2
    assert "is a file; name a folder" in capsys.readouterr().err


@pytest.fixture
def records(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Records]:
    with served(create_app(settings)) as url:
        monkeypatch.setenv("TINYFIT_URL", url)
        yield Records(settings=settings, database=database)


def test_a_search_becomes_a_study(
    records: Records, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = records.succeeded("mine", trials=6, num_given_up=2)
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    command = ["export-study", job_id[:8], "--storage", storage, "--json"]
    assert main(command) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"study": f"mine ({job_id[:8]})", "trials": 6, "infeasible": 0}
    study = optuna.load_study(study_name=answer["study"], storage=storage)
    states = [trial.state.name for trial in study.get_trials()]
    assert states == ["PRUNED"] * 2 + ["COMPLETE"] * 4
    assert study.user_attrs["memory_limit_bytes"] == LIMIT_BYTES
    for trial in study.best_trials:
        assert trial.values[1] == LIMIT_BYTES + trial.system_attrs["constraints"][0]
    assert main(command) == 2
    assert "already" in capsys.readouterr().err
    assert main([*command, "--name", "again"]) == 0


def test_a_search_whose_supernet_the_data_chose(
    records: Records, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = records.succeeded("mine", trials=2)
    command = ["export-study", job_id, "--storage", f"sqlite:///{tmp_path / 'study.db'}"]
    for chosen, status in ((None, 2), (DEFAULT_SUPERNET, 0)):
        with records.database.writing() as session:
            job = session.get_one(Job, job_id)
            job.supernet, job.chosen_supernet = AUTO_SUPERNET, chosen
        assert main(command) == status
    assert "has not chosen its supernet yet" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["bias", "auto"])
def test_a_search_of_candidates_without_lite_residuals(
    records: Records, tmp_path: Path, method: str
) -> None:
    job_id = records.succeeded("mine", trials=6)
    with records.database.writing() as session:
        session.get_one(Job, job_id).method = method
        for trial in session.query(Trial).where(Trial.job_id == job_id):
            trial.candidate = {**trial.candidate, "lite_residual": None}
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    assert main(["export-study", job_id, "--storage", storage, "--name", "study"]) == 0
    assert len(optuna.load_study(study_name="study", storage=storage).trials) == 6
