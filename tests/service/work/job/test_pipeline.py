"""Whole jobs on tiny datasets, with real worker processes and real training."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy.exc import OperationalError

import tinytl
from service.record.db.database import Database
from service.record.db.models import Job
from service.record.files.blobs import OWNER_KEY
from service.record.jobs import list_jobs
from service.work.job.progress import Stage
from tests.service.support.processes import wait_for
from tinytl.native.build import BuildError, builds_what_is_delivered

pytestmark = pytest.mark.long

Files = dict[str, bytes]
MakeZip = Callable[[Mapping[str, bytes]], Path]
LIMIT = "6MB"
ARGUMENTS = (
    *("--memory-limit", LIMIT, "--trials", "6", "--epochs", "2", "--adapt-steps", "6"),
    *("--resolutions", "32", "--seed", "3", "--json"),
)


def adapt(data: Path, output: Path, *more: str) -> list[str]:
    command = [sys.executable, "-m", "service.cli", "adapt", str(data), "--output", str(output)]
    return [*command, *ARGUMENTS, *more]


def run(command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TINYFIT_POLL_SECONDS": "0.2", **more}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=300
    )


def finished(command: list[str], **more: str) -> dict[str, Any]:
    done = run(command, **more)
    assert done.returncode == 0, done.stderr
    job: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return job


def telling(job: dict[str, Any]) -> dict[str, Any]:
    """The part of a result that the seed decides: the bundle's bytes as well, and all that was
    measured but the memory of a process, which differs by pages."""
    result = dict(job["result"])
    del result["measured_peak_bytes"]
    result["checkpoint"] = result["checkpoint"]["sha256"]
    return result


def chosen_method(bundle: Path) -> str:
    return tinytl.load(bundle).method.value


def only_job(output: Path) -> Job:
    """The job of an output folder."""
    database = Database(f"sqlite:///{output / '.tinyfit' / 'tinyfit.db'}")
    try:
        ((job, _),) = list_jobs(database)
        return job
    finally:
        database.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Filled by the first test that needs it: the job, its data and its output folder."""
    return {"directory": tmp_path_factory.mktemp("undisturbed")}


@pytest.fixture
def reference(
    undisturbed: dict[str, Any], make_zip: MakeZip, split_files: Files
) -> dict[str, Any]:
    if "job" not in undisturbed:
        directory = undisturbed["directory"]
        data = make_zip(split_files).rename(directory / "shapes.zip")
        undisturbed |= {"data": data, "output": directory / "output"}
        # Who imports Ray finds this one, which leaves a mark and can't be imported.
        ray = directory / "imports" / "ray.py"
        ray.parent.mkdir()
        ray.write_text("open(__file__ + '.mark', 'w').close()\nraise ImportError('no Ray')\n")
        path = os.pathsep.join([str(ray.parent), *(path for path in sys.path if path)])
        undisturbed["job"] = finished(adapt(data, undisturbed["output"]), PYTHONPATH=path)
        undisturbed["ray"] = ray
    return undisturbed


def test_a_job_ends_with_a_bundle_within_the_limit(reference: dict[str, Any]) -> None:
    job, output = reference["job"], reference["output"]
    result = job["result"]
    assert job["status"] == "succeeded"
    assert job["progress"] == 1.0
    assert result["predicted_peak_bytes"] <= job["memory_limit_bytes"] == 6_000_000
    assert sum(result["memory"]["breakdown_bytes"].values()) == result["predicted_peak_bytes"]
    assert (job["peak_meaning"], result["peak_meaning"]) == ("process", "process")
    assert 0 < result["torch_measured_peak_bytes"] <= result["torch_predicted_peak_bytes"]
    try:
        is_measured = builds_what_is_delivered()
    except BuildError:
        assert (result["trained_by"], result["measured_peak_bytes"]) == ("torch", None)
    else:
        assert result["trained_by"] == "native"
        assert is_measured is (result["measured_peak_bytes"] is not None)
    if result["measured_peak_bytes"] is not None:
        assert 500_000 < result["measured_peak_bytes"] <= result["predicted_peak_bytes"]
    assert (result["trials"], result["reused_trials"]) == (6, 0)
    assert 0 <= result["head_only_test_accuracy"] <= 1
    gain = result["test_accuracy"] - result["head_only_test_accuracy"]
    assert result["gain"]["points"] == pytest.approx(gain)
    assert 0 < result["choice"]["probability_best"] <= 1
    assert 0 <= result["choice"]["num_rivals"] < 6
    assert result["macs"] > 100_000
    bundle = output / "model.tinyfit.zip"
    with zipfile.ZipFile(bundle) as archive:
        report = json.loads(archive.read("report.json"))
        card = archive.read("card.md").decode()
    assert report["result"]["gain"] == result["gain"]
    assert (job["method"], report["job"]["method"]) == ("auto", "auto")
    assert result["method"] == report["result"]["method"] == chosen_method(bundle)
    assert f"| Method | {result['method']} (the search's choice) |" in card
    chosen = report["front"]["points"][-1]
    assert chosen["is_chosen"]
    assert (chosen["method"] == "bias") is (chosen["lite_residual"] is None)
    assert chosen["method"] == result["method"]
    assert (chosen["subnet"], chosen["resolution"]) == (result["subnet"], result["resolution"])
    assert {trial["reused"] for trial in report["trials"]} == {False}
    for check in result["onnx"].values():
        assert check["num_same_class"] == check["num_images"] == 8
        assert check["largest_difference"] < 1e-4
        assert check["bytes"] > 0
    evaluation = report["evaluation"]
    assert evaluation["balanced_accuracy"] == result["balanced_accuracy"]
    assert result["headline"] == evaluation["headline"]
    assert sum(map(sum, evaluation["confusion"])) == evaluation["num_images"] == 8
    for mistake in evaluation["mistakes"]:
        with zipfile.ZipFile(bundle) as archive, archive.open(mistake["image"]) as picture:
            assert Image.open(picture).size == (96, 96)
        assert mistake["image"] in card
    assert "points on the 8 test images" in card
    assert ("within noise" in card) is result["gain"]["is_within_noise"]
    assert "Of 6 candidates within the limits" in card
    assert result["checkpoint"]["url"] == bundle.as_uri()
    assert result["checkpoint"]["bytes"] == bundle.stat().st_size
    model = tinytl.load(bundle)
    assert tuple(model.classes) == ("circle", "square")
    state = output / ".tinyfit"
    assert list((state / "jobs").iterdir()) == list((state / "incoming").iterdir()) == []
    stored = [path for path in (state / "artifacts").iterdir() if path.name != OWNER_KEY]
    assert len(stored) == 6  # images, adapted supernet, bundle, its ONNX, evaluation, program


def test_without_a_cluster_nothing_of_a_whole_job_imports_ray(reference: dict[str, Any]) -> None:
    ray = reference["ray"]
    assert list(ray.parent.glob("ray.py*")) == [ray]
    command = [sys.executable, "-c", "import ray"]  # as it would have been noticed
    environment = {**os.environ, "PYTHONPATH": str(ray.parent)}
    assert subprocess.run(command, env=environment, stderr=subprocess.DEVNULL).returncode == 1
    assert len(list(ray.parent.glob("ray.py*"))) == 2
    (ray.parent / "ray.py.mark").unlink()


def test_the_same_command_again_answers_at_once_and_another_is_refused(
    reference: dict[str, Any],
) -> None:
    data, output = reference["data"], reference["output"]
    started = time.monotonic()
    assert reference["job"]["name"] == "shapes"
    assert finished(adapt(data, output)) == reference["job"]
    assert time.monotonic() - started < 20
    refused = run(adapt(data, output, "--epochs", "4"))
    assert refused.returncode == 2
    assert "epochs 2 there, 4 now" in refused.stderr
    assert refused.stdout == ""


def test_a_job_stopped_twice_goes_on_to_the_same_result(
    reference: dict[str, Any], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    command = adapt(reference["data"], output)
    stop(command, output, Stage.ADAPT, signal.SIGKILL)
    process, words = stop(command, output, Stage.SEARCH, signal.SIGINT)
    assert process.returncode == 1
    assert "run the same command again to go on" in words.splitlines()[-1]
    assert not only_job(output).status.is_final
    assert telling(finished(command)) == telling(reference["job"])
    assert only_job(output).attempt == 3


def stop(
    command: list[str], output: Path, stage: Stage, number: signal.Signals
) -> tuple[subprocess.Popen[str], str]:
    """Signal the command once its job is in this stage; the ended process and its words."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: stage_of(output) == stage, 120)
        process.send_signal(number)
        return process, process.communicate(timeout=60)[1]
    finally:
        process.kill()


def stage_of(output: Path) -> str:
    if not (output / ".tinyfit" / "tinyfit.db").exists():
        return ""
    try:
        return only_job(output).stage or ""
    except (OperationalError, ValueError):  # no tables or no job yet
        return ""


def test_two_at_once_in_one_folder(reference: dict[str, Any]) -> None:
    import fcntl

    with (reference["output"] / ".tinyfit" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = run(adapt(reference["data"], reference["output"]))
    assert refused.returncode == 2
    assert "another tinyfit adapt is at work" in refused.stderr
