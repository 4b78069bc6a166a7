"""What trains a finished job's network further on a device, over HTTP."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from search.space.architecture import SupernetSpec
from service.api.routes import devices
from service.contract.status import Status
from service.record.claims import Claim, publish_artifact
from service.record.db.database import Database, now
from service.record.db.models import Artifact, Job
from service.record.files.artifacts import DEVICE_PROGRAM
from service.record.files.blobs import open_blobs
from service.settings import Settings
from tests.service.api.conftest import RESULT
from tests.service.api.problems import problem
from tests.service.support import delivery
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.engine.network import build_network
from tinytl.native.__main__ import main
from tinytl.native.build import BuildError
from tinytl.training.bundle import save_bundle

pytestmark = pytest.mark.parametrize("artifact_url", ["folder", "memory"], indirect=True)

TARGET = "aarch64-linux-musl"


def _save(path: Path, method: Method) -> Path:
    spec = SupernetSpec.parse("ofa_proxyless_d234_e346_k357_w0.35")
    network = build_network(spec.network_config(spec.smallest, 2), method)
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


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save(tmp_path_factory.mktemp("bundle") / "model.tinyfit.zip", Method.HEAD)


@pytest.fixture(scope="module")
def program(bundle: Path) -> bytes:
    path = bundle.with_name("program.tfp")
    assert main([str(bundle), str(path)]) == 0
    return path.read_bytes()


@pytest.fixture
def make_finished(
    settings: Settings,
    database: Database,
    make_job: Callable[..., Job],
    claim: Callable[[], Claim],
) -> Callable[..., str]:
    """The id of a job that has succeeded with this bundle, and this program."""

    def make(content: bytes, program: bytes | None = None, method: str = "head") -> str:
        job_id = make_job().id
        claimed = claim()
        if program is not None:
            path = settings.data_dir / "program"
            path.write_bytes(program)
            artifact = Artifact(
                job_id=job_id,
                kind=DEVICE_PROGRAM,
                path="program.tfp",
                blob_sha256=open_blobs(settings, database).keep(path),
                num_bytes=len(program),
                detail={"arena_bytes": 5_000_000, "mapped_bytes": 800_000},
                attempt=claimed.attempt,
                created_at=now(),
            )
            publish_artifact(database, claimed, artifact)
        delivery.deliver(settings, database, claimed, content, RESULT | {"method": method})
        return job_id

    return make


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was built, in place of a compiler's work."""
    made: list[str] = []

    def build(target: str) -> Path:
        made.append(target)
        path = tmp_path / target
        path.write_bytes(b"trainer" * 1000)
        return path

    monkeypatch.setattr(devices, "build_trainer", build)
    monkeypatch.setattr(
        devices, "built_trainer", lambda target: tmp_path / target if target in made else None
    )
    return made


def test_a_job_is_sent_to_a_device(
    client: httpx.Client,
    make_finished: Callable[..., str],
    built: list[str],
    bundle: Path,
    program: bytes,
) -> None:
    job_id = make_finished(bundle.read_bytes(), program)
    listed = client.get(f"/jobs/{job_id}/device").json()
    assert listed["program_bytes"] == len(program)
    by_name = {one["target"]: one for one in listed["targets"]}
    assert "native" not in by_name
    assert by_name[TARGET]["binary_bytes"] is None
    unbuilt_bytes = by_name[TARGET]["predicted_process_bytes"]

    whole = client.get(by_name[TARGET]["url"])
    assert whole.status_code == 200, whole.text
    assert built == [TARGET]
    assert f"-{TARGET}.zip" in whole.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        entries = {Path(entry.filename).name: entry for entry in archive.infolist()}
        assert entries.keys() == {"tinyfit-trainer", "program.tfp", "README.txt"}
        assert archive.read(entries["program.tfp"]) == program
        assert entries["tinyfit-trainer"].external_attr >> 16 & stat.S_IXUSR
        text = archive.read(entries["README.txt"]).decode()
    assert TARGET in text
    assert len(text.splitlines()) <= 12
    again = client.get(by_name[TARGET]["url"], headers={"If-None-Match": whole.headers["etag"]})
    assert again.status_code == 304

    (now_built,) = [
        one
        for one in client.get(f"/jobs/{job_id}/device").json()["targets"]
        if one["target"] == TARGET
    ]
    assert now_built["binary_bytes"] == 7000
    assert now_built["predicted_process_bytes"] == unbuilt_bytes - 200_000 + 7000


def test_of_a_job_of_an_earlier_version_the_program_is_made_when_asked(
    client: httpx.Client,
    make_finished: Callable[..., str],
    built: list[str],
    bundle: Path,
    program: bytes,
) -> None:
    job_id = make_finished(bundle.read_bytes())
    listed = client.get(f"/jobs/{job_id}/device").json()
    assert listed["program_bytes"] is None
    assert {one["predicted_process_bytes"] for one in listed["targets"]} == {None}
    whole = client.get(f"/jobs/{job_id}/device/{TARGET}")
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert archive.read("tinyfit-device/program.tfp") == program


def test_a_program_of_another_version_is_made_again(
    client: httpx.Client,
    make_finished: Callable[..., str],
    built: list[str],
    bundle: Path,
    program: bytes,
) -> None:
    other = bytearray(program)
    other[8] += 1
    job_id = make_finished(bundle.read_bytes(), bytes(other))
    whole = client.get(f"/jobs/{job_id}/device/{TARGET}")
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert archive.read("tinyfit-device/program.tfp") == program


def test_an_unknown_target_is_quoted(
    client: httpx.Client, make_finished: Callable[..., str], built: list[str], bundle: Path
) -> None:
    job_id = make_finished(bundle.read_bytes())
    for target in ("sparc-linux", "native"):
        said = problem(client.get(f"/jobs/{job_id}/device/{target}"), 404)["detail"]
        assert repr(target) in said
        assert TARGET in said
    assert built == []


def test_a_refused_method_is_named(
    client: httpx.Client, make_finished: Callable[..., str], built: list[str], bundle: Path
) -> None:
    job_id = make_finished(bundle.read_bytes(), method="norm+head")
    said = problem(client.get(f"/jobs/{job_id}/device/{TARGET}"), 409)["detail"]
    assert "'norm+head'" in said
    listed = client.get(f"/jobs/{job_id}/device").json()["targets"]
    assert {one["unavailable"] for one in listed} == {said}
    assert built == []


def test_what_a_bundle_can_not_be_made_of_is_told(
    client: httpx.Client, make_finished: Callable[..., str], built: list[str]
) -> None:
    job_id = make_finished(b"damaged")
    said = problem(client.get(f"/jobs/{job_id}/device/{TARGET}"), 409)["detail"]
    assert "is no bundle of tinyfit" in said


def test_without_a_compiler_it_says_what_to_install(
    client: httpx.Client,
    make_finished: Callable[..., str],
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find() -> None:
        raise BuildError("no C compiler was found: pip install 'tinyfit[device]' brings one")

    monkeypatch.setattr("tinytl.native.build.find_compiler", find)
    job_id = make_finished(bundle.read_bytes())
    said = problem(client.get(f"/jobs/{job_id}/device/{TARGET}"), 409)["detail"]
    assert "pip install 'tinyfit[device]'" in said
    listed = client.get(f"/jobs/{job_id}/device").json()["targets"]
    assert all("tinyfit[device]" in one["unavailable"] for one in listed)


@pytest.mark.parametrize("path", ["device", f"device/{TARGET}"])
def test_only_a_job_that_has_succeeded_has_one(
    client: httpx.Client, jobs_of_each_status: dict[Status, str], path: str
) -> None:
    for status, job_id in jobs_of_each_status.items():
        if status is not Status.SUCCEEDED:
            found = problem(client.get(f"/jobs/{job_id}/{path}"), 404)
            assert f"is {status.value} and has no model" in found["detail"]
    problem(client.get(f"/jobs/none/{path}"), 404)
