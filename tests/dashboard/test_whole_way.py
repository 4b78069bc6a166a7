"""The whole way as a user goes it, with a real server, a real worker and a real, tiny training."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

import tinytl
from service.demo import serving
from tests.dashboard.conftest import Watch

pytestmark = pytest.mark.long

MakeZip = Callable[..., Path]
_PATIENCE_MS = 120_000


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with serving(tmp_path / "data", TINYFIT_JOB_NICENESS="0") as client:
        yield client.url


@pytest.fixture
def page(browser: Browser, url: str, watch: Watch) -> Iterator[Page]:
    context = browser.new_context(base_url=url, viewport={"width": 1280, "height": 900})
    context.on("page", watch.on)
    yield context.new_page()
    context.close()
    watch.check(url)


def test_from_images_to_a_checkpoint(
    page: Page, watch: Watch, make_zip: MakeZip, tmp_path: Path
) -> None:
    page.goto("/")
    page.get_by_role("link", name="Make the first job").click()
    page.get_by_label("Drop a zip here").set_input_files(make_zip("colours", per_class=20))
    expect(page.get_by_role("heading", name="colours")).to_be_visible()
    page.get_by_label("Memory limit").fill("5MB")
    page.get_by_label("Name").fill("colours")
    page.get_by_text("Search and training settings").click()
    for name, value in (("Trials", "3"), ("Epochs", "2"), ("Adaptation steps", "3")):
        page.get_by_label(name).fill(value)
    page.get_by_label("Image sides").fill("32")
    page.get_by_role("button", name="Start the job").click()

    badge = page.locator(".badge")
    expect(badge).to_have_text("Running", timeout=_PATIENCE_MS)
    expect(page.locator(".steps .now")).to_be_visible(timeout=_PATIENCE_MS)
    expect(badge).to_have_text("Succeeded", timeout=_PATIENCE_MS)
    expect(page.locator(".steps .done")).to_have_count(5)
    log = page.get_by_role("log")
    for name in ("Ingest", "Adapt", "Search", "Train", "Export"):
        expect(log.get_by_text(re.compile(f"^{name}: "))).to_have_count(1)
    expect(page.get_by_role("img", name=re.compile("^3 trials"))).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("Training loss.*As delivered"))).to_be_visible()
    measured = page.locator(".figures div", has_text="Measured peak").locator(".value")
    assert 0 < float(measured.inner_text().split("\u00a0")[0]) <= 5

    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    bundle = tmp_path / "model.zip"
    download.value.save_as(bundle)
    model = tinytl.load(bundle)
    assert model.predict(Image.new("RGB", (24, 24), (190, 30, 30))).label in ("red", "blue")

    # a second one of the same, cancelled on its way, taken up again, and deleted in the end
    page.get_by_role("link", name="Duplicate").click()
    page.get_by_label("Name").fill("another")
    page.get_by_text("Search and training settings").click()
    page.get_by_label("Epochs").fill("1000")
    page.get_by_role("button", name="Start the job").click()
    expect(log).to_contain_text("Begins on", timeout=_PATIENCE_MS)
    cancel(page)
    page.get_by_role("button", name="Retry").click()
    expect(log).to_contain_text("Attempt 2 begins", timeout=_PATIENCE_MS)
    cancel(page)
    page.get_by_role("button", name="Delete").click()
    watch.expected.append("404")  # a poll may cross the deletion
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_role("link", name="colours")).to_be_visible()
    expect(page.get_by_role("link", name="another")).to_have_count(0)


def cancel(page: Page) -> None:
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.locator(".badge")).to_have_text("Cancelled", timeout=_PATIENCE_MS)
