"""`make screenshots`: the pictures of the page in docs/screenshots, of real jobs.

Starts `tinyfit serve` on data of its own, uploads scikit-learn's handwritten digits, runs jobs on
them, and photographs the page in Chromium. Nothing in the pictures is made up. A data folder may
be given, to keep: jobs that it has are not run again.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from service.client import Client
from service.contract.requests import JobRequest, JobSettings
from service.contract.status import Status
from service.demo import export_digits, serving

FOLDER = Path(__file__).with_name("screenshots")
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_WIDE: dict[str, Any] = {"viewport": {"width": 1200, "height": 900}}
_PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}
_COLOURS = 256
_MAX_BYTES = 300_000
_SHOWN_PROGRESS = 0.15
_MARGIN = 14
_SETTINGS: dict[str, Any] = {
    "adapt_steps": 100,
    "resolutions": (32, 40, 48),
    "horizontal_flip": False,  # a mirrored digit is another sign
}


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="tinyfit-screenshots-") as folder,
        serving(Path(sys.argv[1] if len(sys.argv) > 1 else folder) / "data") as client,
        sync_playwright() as playwright,
    ):
        archive = Path(folder) / "digits.zip"
        export_digits(archive)
        dataset = client.upload(archive).id
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(_FLAGS)
        )
        digits = _submit(client, dataset, "Handwritten digits", "6MB", trials=24, epochs=6)
        board = _submit(client, dataset, "Digits for a smaller board", "4MB", trials=8, epochs=6)
        for job_id in (digits, board):
            done = client.wait(job_id)
            if done.status is not Status.SUCCEEDED:
                raise SystemExit(f"the job {done.name!r} {done.status.value}: {done.error}")
        phone = _submit(client, dataset, "Digits for a phone", "12MB", trials=24, epochs=20)
        waiting = _submit(client, dataset, "The same with biases alone", "6MB", method="bias")
        _photograph(browser, client, dataset, digits, phone)
        for job_id in (waiting, phone):
            client.cancel(job_id)
            client.wait(job_id)
            client.delete(job_id)
        browser.close()
    return 0


def _submit(
    client: Client, dataset: str, name: str, limit: str, *, method: str = "", **settings: Any
) -> str:
    """The id of the job of this name, which is made unless there is one."""
    for job in client.jobs():
        if job.name == name:
            return job.id
    fields = {"method": method} if method else {}
    request = JobRequest.model_validate(
        {
            "dataset": dataset,
            "name": name,
            "memory_limit": limit,
            "settings": JobSettings(**(_SETTINGS | settings)),
            **fields,
        }
    )
    return client.submit(request).id


def _photograph(
    browser: Browser, client: Client, dataset: str, finished: str, running: str
) -> None:
    job = f"#/jobs/{finished}"
    for scheme in ("light", "dark"):
        page = _open(browser, client, scheme, _WIDE)
        page.goto(f"/{job}")
        _await_job(page)
        _shoot(page, f"job-{scheme}", until=".columns")
    page = _open(browser, client, "light", _PHONE)
    page.goto(f"/{job}")
    _await_job(page)
    _shoot(page, "job-phone", until=".columns .card")

    page = _open(browser, client, "light", _WIDE)
    page.goto("/#/new")
    page.get_by_label("Or images uploaded before").select_option(dataset)
    page.get_by_label("Memory limit").fill("6MB")
    page.get_by_label("A mirrored image shows the same class").uncheck()
    expect(page.get_by_role("heading", name="digits")).to_be_visible()
    _shoot(page, "new-job")

    while client.job(running).progress < _SHOWN_PROGRESS:
        time.sleep(0.5)
    for name, options in (("jobs", _WIDE), ("jobs-phone", _PHONE)):
        page = _open(browser, client, "light", options)
        page.goto("/#/jobs")
        expect(page.get_by_role("progressbar").first).to_be_visible()
        expect(page.get_by_text("left").first).to_be_visible(timeout=120_000)
        _shoot(page, name, until="table")


def _await_job(page: Page) -> None:
    """Until the page of a finished job has all that it shows; its front is priced first."""
    for name in ("The chosen network", "What less memory would cost"):
        expect(page.get_by_role("heading", name=name)).to_be_visible(timeout=60_000)


def _open(browser: Browser, client: Client, scheme: str, options: dict[str, Any]) -> Page:
    context = browser.new_context(base_url=client.url, color_scheme=scheme, **options)  # type: ignore[arg-type]
    return context.new_page()


def _shoot(page: Page, name: str, *, until: str = "main") -> None:
    """The page from its top to the end of the first element of that kind."""
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(500)
    box = page.locator(until).first.bounding_box()
    assert box is not None
    assert page.viewport_size is not None
    width, height = page.viewport_size["width"], box["y"] + box["height"] + _MARGIN
    picture = page.screenshot(
        full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height}
    )
    taken = Image.open(io.BytesIO(picture))
    path = FOLDER / f"{name}.png"
    taken.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    num_bytes = path.stat().st_size
    if num_bytes > _MAX_BYTES:
        raise SystemExit(f"{path} takes {num_bytes} bytes, more than {_MAX_BYTES}")
    page.context.close()


if __name__ == "__main__":
    sys.exit(main())
