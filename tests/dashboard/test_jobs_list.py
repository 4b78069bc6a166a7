"""The list of jobs."""

import re

import pytest
from playwright.sync_api import Page, expect

from service.contract.status import Priority
from service.record.db.database import Database
from service.record.presence import mark_gone
from tests.dashboard.conftest import RunningServer, Watch
from tests.dashboard.records import Records


def rows(page: Page) -> list[list[str]]:
    return [
        [cell.inner_text().replace("\n", " ") for cell in row.get_by_role("cell").all()]
        for row in page.get_by_role("row").all()[1:]
    ]


def test_without_jobs_the_way_to_the_form_is_shown(page: Page, server: RunningServer) -> None:
    page.goto("/")
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    page.get_by_role("link", name="Make the first job").click()
    expect(page.get_by_role("heading", name="New job")).to_be_focused()


def test_each_job_says_how_it_stands(page: Page, records: Records) -> None:
    records.succeeded("done", trials=1)
    records.failed("broken", error="the disk is full")
    records.paused("paused one")
    records.cancelled("dropped")
    records.running("busy")
    records.queued("waiting")
    records.queued("urgent", priority=Priority.HIGH)
    page.goto("/")
    expect(page.get_by_role("row")).to_have_count(8)
    shown = {row[0]: row[1:] for row in rows(page)}
    assert list(shown) == ["urgent", "waiting", "busy", "dropped", "paused one", "broken", "done"]
    assert shown["done"][0] == "Succeeded"
    assert shown["done"][2:5] == ["6.0\u00a0MB", "4.9\u00a0MB", "91.2%"]
    assert shown["broken"][:2] == ["Failed", "the disk is full"]
    assert shown["waiting"][:2] == ["Queued", "\u2013"]
    assert shown["urgent"][:2] == ["Queued", "High priority"]
    assert shown["busy"][0] == "Running"
    assert re.match(r"40% · Search · about 2\u00a0min left", shown["busy"][1])
    assert shown["paused one"][:2] == ["Paused", "40% · Search"]
    assert shown["dropped"][0] == "Cancelled"


def test_what_happens_shows_by_itself(page: Page, records: Records) -> None:
    claim = records.running("busy")
    page.goto("/")
    bar = page.get_by_role("progressbar", name="Progress of busy")
    expect(bar).to_have_attribute("value", "0.4")
    records.progress(claim, "train", 0.7)
    expect(bar).to_have_attribute("value", "0.7")
    records.queued("newer")
    expect(page.get_by_role("link", name="newer")).to_be_visible()


def test_an_unchanged_list_is_not_sent_again(page: Page, records: Records) -> None:
    records.queued()
    with page.expect_response(lambda answer: "/jobs?" in answer.url) as first:
        page.goto("/")
    with page.expect_response(lambda answer: "/jobs?" in answer.url) as second:
        pass
    assert (first.value.status, second.value.status) == (200, 304)


def test_a_hidden_tab_asks_seldom(page: Page, records: Records) -> None:
    page.add_init_script("Object.defineProperty(document, 'hidden', { get: () => !window.seen })")
    records.queued("first")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/")
    expect(page.get_by_role("link", name="first")).to_be_visible()
    page.wait_for_timeout(1500)  # more than three polls of a visible tab
    assert len([url for url in asked if "/jobs?" in url]) == 1
    records.queued("second")
    page.evaluate("window.seen = true; document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.get_by_role("link", name="second")).to_be_visible(timeout=1000)


def test_polling_leaves_focus_and_scroll_alone(page: Page, records: Records) -> None:
    for number in range(25):
        records.queued(f"job number {number}")
    page.goto("/")
    link = page.get_by_role("link", name="job number 0", exact=True)
    link.focus()
    before = page.evaluate("scrollY")
    assert before > 0
    claim = records.claim()
    records.progress(claim, "adapt", 0.25)
    expect(page.get_by_role("progressbar", name="Progress of job number 0")).to_be_visible()
    expect(link).to_be_focused()
    assert page.evaluate("scrollY") == pytest.approx(before, abs=60)


def test_older_jobs_are_on_pages_of_their_own(page: Page, records: Records) -> None:
    for number in range(30):
        records.queued(f"job number {number}")
    page.goto("/")
    expect(page.get_by_role("row")).to_have_count(26)
    page.get_by_role("link", name="Older").click()
    expect(page.get_by_role("row")).to_have_count(6)
    expect(page.get_by_role("link", name="job number 0", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_role("row")).to_have_count(6)
    page.go_back()
    expect(page.get_by_role("row")).to_have_count(26)


def test_a_filter_shows_one_status_and_has_an_address(page: Page, records: Records) -> None:
    records.failed("broken")
    records.cancelled("dropped")
    page.goto("/")
    page.get_by_role("link", name="Failed").click()
    expect(page.get_by_role("row")).to_have_count(2)
    expect(page.get_by_role("link", name="broken")).to_be_visible()
    expect(page.get_by_role("link", name="Failed")).to_have_attribute("aria-current", "true")
    page.goto("/#/jobs?status=paused")
    expect(page.get_by_text("No job is paused.")).to_be_visible()


def test_a_missing_worker_is_told(page: Page, records: Records, database: Database) -> None:
    page.goto("/")
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    warning = page.get_by_text("No worker is up: jobs wait until one starts.")
    expect(warning).not_to_be_visible()
    mark_gone(database, "w1")
    expect(warning).to_be_visible()


def test_a_server_that_cannot_work_says_why(
    page: Page, records: Records, server: RunningServer, watch: Watch
) -> None:
    watch.expected.append("503")
    server.stop()
    server.settings = server.settings.model_copy(update={"min_free_bytes": 10**18})
    server.start()
    page.goto("/")
    expect(page.get_by_text("The server is not ready. Its storage: ")).to_be_visible()


def test_a_server_that_goes_away_and_comes_back(
    page: Page, records: Records, server: RunningServer, watch: Watch
) -> None:
    watch.expected.append("ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE")
    records.queued("still here")
    page.goto("/")
    expect(page.get_by_role("link", name="still here")).to_be_visible()
    server.stop()
    away = page.get_by_text("The server can't be reached; trying again.")
    expect(away).to_be_visible()
    expect(page.get_by_role("link", name="still here")).to_be_visible()
    records.queued("made meanwhile")
    server.start()
    expect(page.get_by_role("link", name="made meanwhile")).to_be_visible(timeout=15_000)
    expect(away).not_to_be_visible()


@pytest.mark.parametrize("address", ["/#/nowhere/at/all", "/#/jobs/%"])
def test_an_unknown_address_leads_back(page: Page, server: RunningServer, address: str) -> None:
    page.goto(address)
    expect(page.get_by_role("heading", name="Nothing is here")).to_be_visible()
    page.get_by_role("link", name="See the jobs").click()
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
