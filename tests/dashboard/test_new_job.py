"""The form that makes a job."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect
from sqlalchemy import select

from service.contract.status import Priority
from service.record.db.database import Database
from service.record.db.models import Dataset, Job
from service.record.jobs import delete_job, list_jobs
from tests.dashboard.conftest import Watch, wait_until
from tests.dashboard.records import Records

MakeZip = Callable[..., Path]


def start(page: Page) -> Locator:
    return page.get_by_role("button", name="Start the job")


def only_job(database: Database) -> Job:
    ((job, _),) = list_jobs(database)
    return job


def test_an_upload_is_reported_and_used(
    page: Page, records: Records, database: Database, make_zip: MakeZip
) -> None:
    page.goto("/#/new")
    page.get_by_label("Drop a zip here").set_input_files(make_zip("colours", per_class=12))
    report = page.get_by_role("region", name="What was found", exact=True)
    for text in ("colours", "24 (", "Classes2", "24 PNG", "24\u00a0\u00d7\u00a024", "blue, 12"):
        expect(report).to_contain_text(text)
    expect(report).to_contain_text("There are no validation and no test images")
    report.get_by_text("Images of each class").click()
    expect(report.get_by_role("row")).to_have_count(3)
    page.get_by_label("Memory limit").fill("6MB")
    page.get_by_label("Name").fill("from the form")
    page.get_by_label("Priority").select_option("High")
    page.get_by_label("A mirrored image shows the same class").uncheck()
    page.get_by_text("Search and training settings").click()
    page.get_by_label("Trials").fill("3")
    page.get_by_label("Image sides").fill("32 48")
    start(page).click()
    expect(page.get_by_role("heading", name="from the form")).to_be_focused()
    job = only_job(database)
    assert (job.memory_limit_bytes, job.priority) == (6_000_000, Priority.HIGH)
    assert job.settings["trials"] == 3
    assert job.settings["epochs"] is None  # the API's own default
    assert job.settings["resolutions"] == [32, 48]
    assert job.settings["horizontal_flip"] is False


def test_a_dropped_zip_is_uploaded(page: Page, records: Records, make_zip: MakeZip) -> None:
    page.goto("/#/new")
    drop = page.locator(".drop")
    expect(drop).to_be_visible()
    content = list(make_zip().read_bytes())
    files = page.evaluate_handle(
        """content => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(content)], "dropped.zip"));
            return files;
        }""",
        content,
    )
    drop.dispatch_event("drop", {"dataTransfer": files})
    expect(page.get_by_role("heading", name="dropped")).to_be_visible()
    expect(page.get_by_label("Or images uploaded before")).not_to_have_value("")


def drop(page: Page, *paths: Path) -> None:
    """As from the file manager: a script can't make a folder's entry."""
    box = page.locator(".drop").bounding_box()
    assert box is not None
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    devtools = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        place = {"x": box["x"] + 5, "y": box["y"] + 5}
        devtools.send("Input.dispatchDragEvent", {"type": kind, "data": data, **place})


@pytest.fixture
def photos(tmp_path: Path, make_zip: MakeZip) -> Path:
    """A folder of two classes, one of them in a script of its own, one name too long for a tar."""
    folder = tmp_path / "photos"
    zipfile.ZipFile(make_zip()).extractall(folder)
    first = next(iter(sorted(folder.iterdir())))
    (first / "0.png").rename(first / f"{'x' * 120}.png")
    first.rename(folder / "\u732b")
    return folder


def test_a_dropped_folder_is_sent(
    page: Page, records: Records, photos: Path, database: Database
) -> None:
    page.goto("/#/new")
    expect(page.locator(".drop")).to_be_visible()
    drop(page, photos)
    expect(page.get_by_role("heading", name="photos")).to_be_visible()
    with database.reading() as session:
        (dataset,) = session.scalars(select(Dataset))
    assert "\u732b" in dataset.classes
    assert dataset.num_images == sum(path.is_file() for path in photos.rglob("*"))


def test_a_folder_can_be_chosen(page: Page, records: Records, photos: Path) -> None:
    page.goto("/#/new")
    page.get_by_label("Or choose a folder").set_input_files(photos)
    expect(page.get_by_role("heading", name="photos")).to_be_visible()


def test_a_contact_sheet_shows_the_squares(page: Page, records: Records, photos: Path) -> None:
    page.goto("/#/new")
    with page.expect_response("**/contact-sheet?fit=crop") as answer:
        page.get_by_label("Or choose a folder").set_input_files(photos)
    assert answer.value.headers["content-type"] == "image/jpeg"
    sheet = page.get_by_role("group", name="Images as training sees them")
    row = sheet.get_by_role("img", name="6 images of \u732b")
    expect(row).to_be_visible()
    wait_until(
        page,
        """() => document.querySelector(".sheet canvas")
            .getContext("2d").getImageData(9, 9, 1, 1).data[3] === 255""",
    )
    with page.expect_response("**/contact-sheet?fit=pad"):
        page.get_by_label("How a picture becomes a square").select_option("pad")


def test_broken_images_are_listed_and_can_be_left_out(
    page: Page, records: Records, photos: Path, watch: Watch
) -> None:
    watch.expected.append("422")
    for name in ("a.jpg", "b.jpg"):
        (photos / "\u732b" / name).write_bytes(b"")
    page.goto("/#/new")
    page.get_by_label("Or choose a folder").set_input_files(photos)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("2 images can't be used")
    expect(alert.get_by_role("listitem")).to_have_count(2)
    alert.get_by_role("button", name="Go on without them").click()
    expect(page.get_by_role("heading", name="photos")).to_be_visible()
    expect(page.locator(".notes")).to_contain_text("2 images skipped")


def test_of_several_dropped_files_none_is_sent(
    page: Page, records: Records, make_zip: MakeZip
) -> None:
    page.goto("/#/new")
    expect(page.locator(".drop")).to_be_visible()
    drop(page, make_zip("one"), make_zip("two"))
    expect(page.get_by_role("alert")).to_contain_text("not several files")
    drop(page, make_zip("one"))
    expect(page.get_by_role("heading", name="one")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_refused_upload_says_what_is_wrong(
    page: Page, records: Records, make_zip: MakeZip, watch: Watch
) -> None:
    watch.expected.append("422")
    page.goto("/#/new")
    bad = make_zip("bad", files={"cat/1.png": b"no image", "dog/1.png": b"none"})
    page.get_by_label("Drop a zip here").set_input_files(bad)
    expect(page.get_by_role("alert")).to_contain_text("class 'cat' has 1 training images")
    page.get_by_label("Drop a zip here").set_input_files(make_zip("good"))
    expect(page.get_by_role("region", name="What was found", exact=True)).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_an_upload_under_way_can_be_stopped(
    page: Page, records: Records, make_zip: MakeZip
) -> None:
    page.goto("/#/new")
    held: list[Route] = []
    page.route("**/datasets", lambda route: held.append(route))
    page.get_by_label("Drop a zip here").set_input_files(make_zip("slow"))
    expect(page.get_by_role("progressbar", name="Upload of slow")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_label("Drop a zip here")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_images_are_deleted_unless_a_job_is_over_them(
    page: Page, records: Records, database: Database, watch: Watch
) -> None:
    watch.expected.append("409")
    job_id = records.cancelled()
    page.goto("/#/new")
    known = page.get_by_label("Or images uploaded before")
    delete = page.get_by_role("button", name="Delete these images")
    known.select_option("d1")
    delete.click()
    page.get_by_role("button", name="Keep them").click()
    expect(delete).to_be_focused()
    delete.click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_role("alert")).to_contain_text(job_id)
    delete_job(database, job_id)
    delete.click()
    page.get_by_role("button", name="Delete for good").click()
    expect(known).to_have_count(0)
    expect(page.get_by_label("Drop a zip here")).to_be_focused()
    with database.reading() as session:
        assert session.get(Dataset, "d1") is None


def test_a_limit_that_nothing_meets_offers_the_smallest(
    page: Page, records: Records, database: Database, watch: Watch
) -> None:
    watch.expected.append("422")
    records.dataset()
    page.goto("/#/new")
    page.get_by_label("Or images uploaded before").select_option("d1")
    limit = page.get_by_label("Memory limit")
    limit.fill("100kB")
    with page.expect_response("**/jobs") as refused:
        start(page).click()
    smallest = refused.value.json()["smallest_feasible_bytes"]
    expect(limit).to_be_focused()
    expect(limit).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#memory_limit-error")).to_contain_text("the smallest feasible one is")
    page.get_by_role("button", name="Use ").click()
    expect(limit).to_be_focused()
    start(page).click()
    expect(page.locator(".badge")).to_have_text("Queued")
    assert smallest <= only_job(database).memory_limit_bytes < smallest + 10_000


def test_a_compute_limit_that_nothing_meets_offers_the_smallest(
    page: Page, records: Records, database: Database, watch: Watch
) -> None:
    watch.expected.append("422")
    records.dataset()
    page.goto("/#/new")
    page.get_by_label("Or images uploaded before").select_option("d1")
    page.get_by_label("Memory limit").fill("6MB")
    page.get_by_text("Search and training settings").click()
    limit = page.get_by_label("Compute limit")
    limit.fill("1k")
    with page.expect_response("**/jobs") as refused:
        start(page).click()
    smallest = refused.value.json()["smallest_feasible_macs"]
    expect(limit).to_be_focused()
    expect(page.locator("#mac_limit-error")).to_contain_text("the smallest feasible one is")
    expect(page.locator("#memory_limit-error")).to_have_count(0)
    page.get_by_role("button", name="Use ").click()
    start(page).click()
    expect(page.locator(".badge")).to_have_text("Queued")
    assert smallest <= only_job(database).settings["mac_limit"] < smallest + 10_000


def test_what_the_server_refuses_stands_beside_its_field(
    page: Page, records: Records, watch: Watch
) -> None:
    watch.expected.append("422")
    records.dataset()
    page.goto("/#/new")
    page.get_by_label("Or images uploaded before").select_option("d1")
    page.get_by_label("Memory limit").fill("plenty")
    page.get_by_text("Search and training settings").click()
    page.get_by_label("Trials").fill("0")
    page.get_by_label("Epochs").fill("ten")
    page.get_by_text("Search and training settings").click()
    start(page).click()
    expect(page.locator("#memory_limit-error")).to_contain_text("'plenty'")
    expect(page.get_by_label("Memory limit")).to_be_focused()
    expect(page.locator("#trials-error")).to_be_visible()  # its group has opened
    expect(page.locator("#trials-error")).to_contain_text("greater than or equal to 1")
    expect(page.locator("#epochs-error")).to_contain_text("valid integer")
    expect(page.get_by_label("Trials")).to_have_value("0")


def test_how_the_search_goes_can_be_said(page: Page, records: Records, database: Database) -> None:
    records.dataset()
    page.goto("/#/new")
    page.get_by_label("Or images uploaded before").select_option("d1")
    page.get_by_label("Memory limit").fill("6MB")
    page.get_by_text("Search and training settings").click()
    page.get_by_label("Sampler").select_option("random")
    page.get_by_label("Trials").fill("")
    page.get_by_label("Time limit").fill("10m")
    page.get_by_label("Compute limit").fill("20M")
    page.get_by_label("Patience").fill("5")
    page.get_by_label("Give up hopeless candidates early").uncheck()
    page.get_by_label("Use what earlier jobs have found").uncheck()
    start(page).click()
    expect(page.locator(".badge")).to_have_text("Queued")
    settings = only_job(database).settings
    assert (settings["sampler"], settings["patience"]) == ("random", 5)
    assert (settings["race"], settings["reuse"]) == (False, False)
    assert (settings["time_limit_seconds"], settings["mac_limit"]) == (600, 20_000_000)
    assert settings["trials"] == 10_000  # time alone ends it
    page.get_by_role("link", name="Duplicate").click()
    page.get_by_text("Search and training settings").click()
    expect(page.get_by_label("Sampler")).to_have_value("random")
    expect(page.get_by_label("Time limit")).to_have_value("10m")
    expect(page.get_by_label("Compute limit")).to_have_value("20M")
    expect(page.get_by_label("Give up hopeless candidates early")).not_to_be_checked()


def test_refused_amounts_stand_beside_their_fields(
    page: Page, records: Records, watch: Watch
) -> None:
    watch.expected.append("422")
    records.dataset()
    page.goto("/#/new")
    page.get_by_label("Or images uploaded before").select_option("d1")
    page.get_by_label("Memory limit").fill("6MB")
    page.get_by_text("Search and training settings").click()
    page.get_by_label("Time limit").fill("soon")
    page.get_by_label("Compute limit").fill("few")
    page.get_by_label("Patience").fill("0")
    page.get_by_text("Search and training settings").click()
    start(page).click()
    expect(page.locator("#time_limit_seconds-error")).to_contain_text("'soon'")
    expect(page.locator("#mac_limit-error")).to_contain_text("'few'")
    expect(page.locator("#patience-error")).to_contain_text("greater than or equal to 1")
    expect(page.get_by_label("Patience")).to_be_focused()  # the first of them


def test_a_job_needs_images(page: Page, records: Records) -> None:
    page.goto("/#/new")
    start(page).click()
    expect(page.get_by_text("Choose images first.")).to_be_visible()
    expect(page.get_by_label("Drop a zip here")).to_be_focused()


def test_a_lost_answer_makes_no_second_job(
    page: Page, records: Records, database: Database, watch: Watch
) -> None:
    watch.expected.append("ERR_FAILED|ERR_CONNECTION")
    records.dataset()
    page.goto("/#/new")
    page.get_by_label("Or images uploaded before").select_option("d1")
    page.get_by_label("Memory limit").fill("6MB")

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/jobs", lose, times=1)
    start(page).click()
    expect(page.get_by_role("alert")).to_contain_text("can't be reached")
    start(page).click()
    expect(page.locator(".badge")).to_have_text("Queued")
    only_job(database)


def test_a_job_can_be_duplicated(page: Page, records: Records) -> None:
    job = records.queued("first", trials=7, seed=5)
    page.goto(f"/#/jobs/{job.id}")
    page.get_by_role("link", name="Duplicate").click()
    expect(page.get_by_label("Memory limit")).to_have_value("6MB")
    expect(page.get_by_label("Or images uploaded before")).to_have_value("d1")
    page.get_by_text("Search and training settings").click()
    expect(page.get_by_label("Trials")).to_have_value("7")
    expect(page.get_by_label("Seed")).to_have_value("5")
    expect(page.get_by_label("Image sides")).to_have_value("32, 48")
    expect(page.get_by_label("Name")).to_have_value("first")


def test_a_duplicate_is_not_called_after_another_jobs_id(page: Page, records: Records) -> None:
    job = records.queued("")
    page.goto(f"/#/jobs/{job.id}")
    page.get_by_role("link", name="Duplicate").click()
    expect(page.get_by_label("Memory limit")).to_have_value("6MB")
    expect(page.get_by_label("Name")).to_have_value("")


def test_by_keyboard_alone(page: Page, records: Records, database: Database, watch: Watch) -> None:
    """From the list to a job that is cancelled and deleted, with no pointer."""
    watch.expected.append("404")  # a poll may cross the deletion
    records.dataset()
    page.goto("/")
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    press = page.keyboard.press

    def tab_to(target: Locator) -> None:
        for _ in range(40):
            if target.evaluate("element => element === document.activeElement"):
                outline = target.evaluate("element => getComputedStyle(element).outlineStyle")
                assert outline != "none"
                return
            press("Tab")
        raise AssertionError(f"no way to {target}")

    press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    press("Enter")
    expect(page.locator("main")).to_be_focused()
    tab_to(page.get_by_role("link", name="Make the first job"))
    press("Enter")
    expect(page.get_by_role("heading", name="New job")).to_be_focused()
    expect(page.get_by_label("Or images uploaded before")).to_be_visible()
    tab_to(page.get_by_label("Or images uploaded before"))
    page.keyboard.type("shapes")
    tab_to(page.get_by_label("Memory limit"))
    page.keyboard.type("6MB")
    press("Enter")
    expect(page.locator(".badge")).to_have_text("Queued")
    tab_to(page.get_by_role("button", name="Cancel", exact=True))
    press("Enter")
    expect(page.get_by_role("button", name="Let it go on")).to_be_focused()
    tab_to(page.get_by_role("button", name="Cancel the job"))
    press("Enter")
    expect(page.locator(".badge")).to_have_text("Cancelled")
    expect(page.get_by_role("group", name="Actions")).to_be_focused()
    tab_to(page.get_by_role("button", name="Delete", exact=True))
    press("Enter")
    tab_to(page.get_by_role("button", name="Delete for good"))
    press("Enter")
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_focused()
    assert list_jobs(database) == []


def test_the_forms_defaults_are_the_apis_own(page: Page, records: Records) -> None:
    """A form that is sent untouched says what a request without settings would."""
    records.dataset()
    page.goto("/#/new")
    page.get_by_label("Or images uploaded before").select_option("d1")
    page.get_by_label("Memory limit").fill("6MB")
    with page.expect_request("**/jobs") as sent:
        start(page).click()
    body = json.loads(sent.value.post_data or "")
    made = page.request.post("/jobs", data=body).json()
    plain = page.request.post("/jobs", data={"dataset": "d1", "memory_limit": "6MB"}).json()
    assert (body["supernet"], body["method"]) == ("auto", "auto")
    assert body["settings"].pop("fit") == "auto"
    assert plain["settings"].pop("fit") == made["settings"]["fit"] == "crop"
    assert body["settings"] == {
        name: value for name, value in plain["settings"].items() if value is not None
    }
    assert (made["method"], made["supernet"]) == (plain["method"], plain["supernet"])


def test_a_device_takes_the_place_of_a_limit(
    page: Page, records: Records, database: Database
) -> None:
    records.dataset()
    page.goto("/#/new")
    page.get_by_label("Or images uploaded before").select_option("d1")
    limit = page.get_by_label("Memory limit")
    limit.fill("6MB")
    page.get_by_role("combobox", name="Device").select_option("pi-zero-2w")
    expect(limit).to_have_value("")
    expect(limit).to_have_attribute("placeholder", "268.4\u00a0MB")
    expect(page.locator("#device-hint")).to_contain_text("MemAvailable")
    page.get_by_text("Also bounded").click()
    page.get_by_label("Model size").fill("2MB")
    page.get_by_label("Memory of classifying").fill("90MB")
    start(page).click()
    expect(page.locator(".badge")).to_have_text("Queued")
    job = only_job(database)
    assert job.memory_limit_bytes == 256 << 20
    assert job.settings["inference_memory_limit"] == 90_000_000
    assert (job.settings["device"], job.settings["model_size_limit"]) == ("pi-zero-2w", 2_000_000)
    settings = page.get_by_role("region", name="Settings")
    for text in ("Devicepi-zero-2w", "Model size limit2.0\u00a0MB", "Limit of classifying90.0"):
        expect(settings).to_contain_text(text)
    page.get_by_role("link", name="Duplicate").click()
    expect(page.get_by_role("combobox", name="Device")).to_have_value("pi-zero-2w")
    expect(page.get_by_label("Model size")).to_have_value("2MB")


def test_bounds_that_nothing_meets_offer_the_smallest(
    page: Page, records: Records, database: Database, watch: Watch
) -> None:
    watch.expected.append("422")
    records.dataset()
    page.goto("/#/new")
    page.get_by_label("Or images uploaded before").select_option("d1")
    page.get_by_label("Memory limit").fill("6MB")
    page.get_by_text("Also bounded").click()
    page.get_by_label("Model size").fill("1kB")
    page.get_by_label("Memory of classifying").fill("1MB")
    page.get_by_text("Also bounded").click()
    start(page).click()
    for name in ("model_size_limit", "inference_memory_limit"):
        error = page.locator(f"#{name}-error")
        expect(error).to_be_visible()  # its group has opened
        expect(error).to_contain_text(re.compile(f"{name} 1.0", re.IGNORECASE))
    needed = page.get_by_role("button", name="Use ")
    expect(needed).to_have_count(2)
    texts = [text.removeprefix("Use ").strip() for text in needed.all_inner_texts()]
    for label, text in zip(("Model size", "Memory of classifying"), texts, strict=True):
        page.get_by_label(label).fill(text)
    start(page).click()
    expect(page.locator(".badge")).to_have_text("Queued")
    assert only_job(database).settings["inference_memory_limit"] > 50_000_000


def test_a_job_can_be_posted_to_a_webhook(page: Page, records: Records, watch: Watch) -> None:
    watch.expected.append("422")  # this server has no secret to sign with
    records.dataset()
    page.goto("/#/new")
    page.get_by_label("Or images uploaded before").select_option("d1")
    page.get_by_label("Memory limit").fill("6MB")
    page.get_by_text("Search and training settings").click()
    page.get_by_label("Webhook").fill(" https://example.org/done ")
    with page.expect_request("**/jobs") as sent:
        start(page).click()
    assert sent.value.post_data_json["webhook"] == "https://example.org/done"
    expect(page.get_by_role("alert")).to_contain_text("TINYFIT_WEBHOOK_SECRET")
