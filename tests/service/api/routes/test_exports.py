"""A finished job's network as ONNX, class by class, and tried on an image."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from search.space.architecture import SupernetSpec
from service.api.document.examples import EVALUATION
from service.contract.status import Status
from service.record.claims import Claim
from service.record.db.database import Database
from service.record.db.models import Job
from service.settings import Settings
from tests.service.api.conftest import RESULT
from tests.service.api.problems import problem
from tests.service.support import delivery
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.engine.network import build_network
from tinytl.onnx_export.__main__ import main
from tinytl.training.bundle import save_bundle

pytestmark = pytest.mark.parametrize("artifact_url", ["folder", "memory"], indirect=True)

MakeFinished = Callable[..., str]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = SupernetSpec.parse("ofa_proxyless_d234_e346_k357_w0.35")
    network = build_network(spec.network_config(spec.smallest, 2), Method.HEAD)
    path = tmp_path_factory.mktemp("bundle") / "model.tinyfit.zip"
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
def exported(bundle: Path) -> bytes:
    path = bundle.with_name("onnx.zip")
    assert main(str(bundle), str(path)) == 0
    return path.read_bytes()


@pytest.fixture
def make_finished(
    settings: Settings,
    database: Database,
    make_job: Callable[..., Job],
    claim: Callable[[], Claim],
) -> MakeFinished:
    """The id of a job that has succeeded with this bundle."""

    def make(content: bytes, **more: bytes) -> str:
        job_id = make_job().id
        delivery.deliver(settings, database, claim(), content, RESULT, **more)
        return job_id

    return make


def picture(kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (90, 60), (200, 10, 10)).save(file, kind)
    return file.getvalue()


def test_the_export_of_the_job(
    client: httpx.Client, make_finished: MakeFinished, bundle: Path, exported: bytes
) -> None:
    url = f"/jobs/{make_finished(bundle.read_bytes(), onnx=exported)}/export/onnx"
    whole = client.get(url)
    assert (whole.status_code, whole.content) == (200, exported)
    assert whole.headers["etag"] == f'"{hashlib.sha256(exported).hexdigest()}"'
    assert "-onnx.zip" in whole.headers["content-disposition"]
    part = client.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, exported[10:20])
    assert client.get(url, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304


def test_a_job_of_an_earlier_version_is_exported_when_asked(
    client: httpx.Client, make_finished: MakeFinished, bundle: Path, exported: bytes
) -> None:
    url = f"/jobs/{make_finished(bundle.read_bytes())}/export/onnx"
    whole = client.get(url)
    assert (whole.status_code, whole.content) == (200, exported)
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert "predict.py" in archive.namelist()
    assert client.get(url, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304


def test_what_is_no_network_is_not_exported(
    client: httpx.Client, make_finished: MakeFinished
) -> None:
    job_id = make_finished(b"damaged")
    found = problem(client.get(f"/jobs/{job_id}/export/onnx"), 404)
    assert "is no bundle of tinyfit" in found["detail"]


@pytest.mark.parametrize("path", ["export/onnx", "evaluation"])
def test_only_a_job_that_has_succeeded_has_a_model(
    client: httpx.Client, jobs_of_each_status: dict[Status, str], path: str
) -> None:
    for status, job_id in jobs_of_each_status.items():
        if status is not Status.SUCCEEDED:
            found = problem(client.get(f"/jobs/{job_id}/{path}"), 404)
            assert f"is {status.value} and has no model" in found["detail"]
    problem(client.get(f"/jobs/none/{path}"), 404)


def test_the_evaluation(client: httpx.Client, make_finished: MakeFinished, bundle: Path) -> None:
    stored = json.dumps(EVALUATION).encode()
    url = f"/jobs/{make_finished(bundle.read_bytes(), evaluation=stored)}/evaluation"
    found = client.get(url)
    assert (found.status_code, found.json()) == (200, EVALUATION)
    assert client.get(url, headers={"If-None-Match": found.headers["etag"]}).status_code == 304
    earlier = f"/jobs/{make_finished(bundle.read_bytes())}/evaluation"
    assert "earlier version" in problem(client.get(earlier), 404)["detail"]


@pytest.mark.parametrize("is_earlier", [False, True])
def test_an_image_is_classified(
    client: httpx.Client,
    make_finished: MakeFinished,
    bundle: Path,
    exported: bytes,
    is_earlier: bool,
) -> None:
    more = {} if is_earlier else {"onnx": exported}
    url = f"/jobs/{make_finished(bundle.read_bytes(), **more)}/predict"
    found = client.post(url, files={"file": picture()})
    assert found.status_code == 200, found.text
    answer: dict[str, Any] = found.json()
    shares = [one["probability"] for one in answer["probabilities"]]
    assert {one["name"] for one in answer["probabilities"]} == {"circle", "square"}
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
    assert answer["label"] == answer["probabilities"][0]["name"]


def test_what_is_no_image_is_refused(
    client: httpx.Client, make_finished: MakeFinished, bundle: Path, exported: bytes
) -> None:
    url = f"/jobs/{make_finished(bundle.read_bytes(), onnx=exported)}/predict"
    sent = {"file": b"no image", "name": (None, "notes.txt")}
    assert "'notes.txt' is not an image" in problem(client.post(url, files=sent), 422)["detail"]
    cut = picture("JPEG")[:-200]
    assert "damaged" in problem(client.post(url, files={"file": cut}), 422)["detail"]
    assert "form" in problem(client.post(url, content=b"{}"), 422)["detail"]
