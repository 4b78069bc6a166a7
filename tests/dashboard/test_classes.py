"""A finished job class by class, and tried on an image."""

import io
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from search.space.architecture import SupernetSpec
from tests.dashboard.conftest import Watch
from tests.dashboard.records import Records
from tests.dashboard.test_job import button, card
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.engine.network import build_network
from tinytl.training.bundle import save_bundle


def test_each_class_is_told(page: Page, records: Records) -> None:
    page.goto(f"/#/jobs/{records.succeeded()}")
    expect(page.locator(".headline")).to_contain_text("90.0% with every class counted alike")
    classes = card(page, "Class by class")
    scores = classes.locator(".scores tbody tr")
    expect(scores.nth(0)).to_have_text("circle3093.3%96.6%")
    expect(scores.nth(1)).to_have_text("square475.0%60.0%")
    expect(scores.nth(2)).to_have_text("none0nonenone")
    expect(classes.locator(".confusion tbody tr").nth(1).locator("td")).to_have_text(
        ["1", "3", ""]
    )
    mistakes = card(page, "Most confidently wrong")
    expect(mistakes.locator("li")).to_have_text("square, told to becircle, 97%")
    picture = mistakes.locator("img")
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1
    expect(button(page, "Export ONNX")).to_be_visible()


def test_accuracy_alone_is_not_the_headline_where_it_misleads(
    page: Page, records: Records
) -> None:
    job_id = records.succeeded("uneven", balanced_accuracy=0.61)
    page.goto(f"/#/jobs/{job_id}")
    figure = page.locator(".figures > div").first
    expect(figure).to_contain_text("Balanced test accuracy")
    expect(figure.locator(".value")).to_have_text("61.0%")
    expect(figure).to_contain_text("91.2% of all test images")
    page.goto("/#/jobs")
    expect(page.get_by_text("61.0%")).to_be_visible()
    expect(page.get_by_text("91.2%")).to_have_count(0)


def test_a_job_of_an_earlier_version_has_no_classes(page: Page, records: Records) -> None:
    page.goto(f"/#/jobs/{records.succeeded(is_old=True)}")
    expect(page.locator(".figures")).to_contain_text("91.2%")
    expect(card(page, "Class by class")).to_have_count(0)
    expect(page.locator(".headline")).to_have_count(0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    spec = SupernetSpec.parse("ofa_proxyless_d234_e346_k357_w0.35")
    network = build_network(spec.network_config(spec.smallest, 2), Method.HEAD)
    path: Path = tmp_path_factory.mktemp("bundle") / "model.tinyfit.zip"
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
    return path.read_bytes()


def test_an_image_is_tried(page: Page, records: Records, bundle: bytes, watch: Watch) -> None:
    page.goto(f"/#/jobs/{records.succeeded(bundle=bundle)}")
    tried = card(page, "Try it")
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 20, 20)).save(file, "PNG")
    photo = {"name": "red.png", "mimeType": "image/png", "buffer": file.getvalue()}
    tried.get_by_label("Drop an image here").set_input_files([photo])
    expect(tried.locator("tbody tr")).to_have_count(2)
    expect(tried.locator("caption")).to_contain_text("red.png is")
    expect(tried.get_by_role("img", name="red.png")).to_be_visible()
    watch.expected.append("422")
    notes = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}
    tried.get_by_label("Drop an image here").set_input_files([notes])
    expect(tried.locator(".banner")).to_contain_text("'notes.txt' is not an image")


def test_other_jobs_can_not_be_tried(page: Page, records: Records) -> None:
    page.goto(f"/#/jobs/{records.failed()}")
    expect(page.get_by_text("The disk is full").first).to_be_visible()
    expect(card(page, "Try it")).to_have_count(0)
