"""A server that wants an API key."""

import pytest
from playwright.sync_api import Page, Route, expect

from service.record.db.database import Database
from service.record.keys import create_key
from tests.dashboard.conftest import RunningServer, Watch
from tests.dashboard.records import Records


@pytest.fixture
def key(database: Database) -> str:
    return create_key(database, "laptop")[1]


def test_the_page_asks_for_a_key_and_uses_it(
    key: str, page: Page, records: Records, server: RunningServer, watch: Watch
) -> None:
    watch.expected.append("401")
    job_id = records.succeeded("done", trials=2)
    page.goto(f"/#/jobs/{job_id}")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    field = page.get_by_label("API key", exact=True)
    field.fill("tf_wrong")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("The key was refused")
    field.fill(key)
    page.keyboard.press("Enter")
    expect(dialog).not_to_be_visible()
    expect(page.get_by_role("heading", name="done")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.path().read_bytes() == b"bundle"
    assert download.value.suggested_filename.endswith(".zip")

    page.reload()
    expect(page.get_by_role("heading", name="done")).to_be_visible()
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.get_by_role("button", name="Forget key").click()
    expect(dialog).to_be_visible()


@pytest.mark.parametrize("pasted", ["tf_\N{HORIZONTAL ELLIPSIS}", "two words"])
def test_what_can_be_no_key_is_not_sent(
    key: str, page: Page, server: RunningServer, watch: Watch, pasted: str
) -> None:
    watch.expected.append("401")
    page.goto("/")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    field = page.get_by_label("API key", exact=True)
    field.fill(pasted)
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("This can't be a key")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    field.fill(f" {key} ")
    page.keyboard.press("Enter")
    expect(dialog).not_to_be_visible()
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()


def test_an_answer_to_what_was_asked_without_the_key_is_no_refusal_of_it(
    key: str, page: Page, server: RunningServer, watch: Watch
) -> None:
    watch.expected.append("401")
    page.goto("/")
    expect(page.get_by_role("dialog")).to_be_visible()
    held: list[Route] = []

    def hold(route: Route) -> None:
        if "authorization" in route.request.headers:
            route.continue_()
        else:
            held.append(route)

    page.route("**/jobs?*", hold)
    with page.expect_request("**/jobs?*"):  # the page asks again now and then
        pass
    page.get_by_label("API key", exact=True).fill(key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    with page.expect_response(lambda response: response.status == 401):
        for route in held:
            route.continue_()
    with page.expect_response(lambda response: response.status != 401):
        pass  # by now the page has dealt with the refusal
    expect(page.get_by_role("dialog")).not_to_be_visible()


def test_an_open_server_asks_for_none(page: Page, records: Records) -> None:
    records.queued("open")
    page.goto("/")
    expect(page.get_by_role("link", name="open")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Forget key")).to_have_count(0)
