"""Every view, light and wide, dark and at 360 pixels: nothing that axe-core finds, and nothing
to scroll sideways."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, expect

from tests.dashboard.conftest import Watch, wait_until
from tests.dashboard.records import Records

OpenContext = Callable[..., BrowserContext]


def no_violations(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


_TOO_WIDE = """() => [...document.querySelectorAll("body *")]
    .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
    .map((element) => element.outerHTML.slice(0, 200))"""


def fits(page: Page) -> None:
    """A chart follows its column a frame later: what stays too wide is told."""
    try:
        wait_until(page, "() => document.documentElement.scrollWidth <= innerWidth")
    except TimeoutError:
        raise AssertionError(page.evaluate(_TOO_WIDE)) from None


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_every_view(
    open_context: OpenContext, records: Records, scheme: str, width: int, watch: Watch
) -> None:
    watch.expected.append("404|422")
    context = open_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    page = context.new_page()

    def check(address: str, ready: str) -> None:
        page.goto(address)
        expect(page.get_by_text(ready).first).to_be_visible()
        no_violations(page)
        fits(page)

    check("/", "No jobs yet")
    done = records.succeeded(
        "a job with a rather long name_without_any_place_to_break_it" * 2,
        num_reused=3,
        num_given_up=3,
        is_gain_noise=True,
    )
    failed = records.failed()
    paused = records.paused()
    running = records.running(trials=3, stage="train")
    records.add_epochs(running, "tinytl", 2)
    check("/#/jobs", "Running")
    check(f"/#/jobs/{done}", "The chosen network")
    expect(page.get_by_text("What less memory would cost")).to_be_visible()
    for summary in page.get_by_text("As a table").all():
        summary.click()
    no_violations(page)
    fits(page)
    page.get_by_role("button", name="Delete").click()
    no_violations(page)
    check(f"/#/jobs/{running.job_id}", "The best network so far")
    check(f"/#/jobs/{failed}", "The disk is full")
    check(f"/#/jobs/{paused}", "Resume")
    check("/#/jobs/none", "There is no such job")
    check("/#/new", "Memory limit")
    page.get_by_label("Or images uploaded before").select_option("d1")
    page.get_by_text("Search and training settings").click()
    page.get_by_label("Memory limit").fill("1kB")
    page.get_by_role("button", name="Start the job").click()
    expect(page.get_by_role("button", name="Use ")).to_be_visible()
    no_violations(page)
    fits(page)


def test_colours_follow_the_system(open_context: OpenContext, records: Records) -> None:
    page = open_context(color_scheme="light").new_page()
    page.goto(f"/#/jobs/{records.succeeded(trials=2)}")
    canvas = page.get_by_role("img", name="2 trials")
    expect(canvas).to_be_visible()
    root = page.locator("html")
    expect(root).to_have_css("background-color", "rgb(245, 246, 248)")
    drawn = canvas.evaluate("canvas => canvas.toDataURL()")
    page.emulate_media(color_scheme="dark")
    expect(root).to_have_css("background-color", "rgb(15, 18, 23)")
    wait_until(page, "drawn => document.querySelector('canvas').toDataURL() !== drawn", arg=drawn)


def test_nothing_moves_where_that_is_not_wanted(
    open_context: OpenContext, records: Records
) -> None:
    claim = records.running()
    page = open_context(reduced_motion="reduce").new_page()
    page.goto(f"/#/jobs/{claim.job_id}")
    mark = page.locator("[aria-current=step] .mark")
    expect(mark).to_have_css("animation-name", "none")
    page.emulate_media(reduced_motion="no-preference")
    expect(mark).to_have_css("animation-name", "pulse")
