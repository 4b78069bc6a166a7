"""One job: its progress, its charts, what can be done with it."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from search.supernets.registry import DEFAULT_SUPERNET
from service.contract.status import Status, StopRequest
from service.record.claims import choose_supernet
from service.record.db.database import Database
from service.record.jobs import get_job
from service.settings import AUTO_SUPERNET
from tests.dashboard.conftest import Watch, wait_until
from tests.dashboard.records import Records


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def card(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def is_drawn(canvas: Locator) -> bool:
    """Whether a chart has pixels of many colours."""
    colours: int = canvas.evaluate(
        """canvas => {
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            return new Set(new Uint32Array(data.buffer)).size;
        }"""
    )
    return colours > 10


def test_a_finished_job_shows_what_came_out(page: Page, records: Records) -> None:
    job_id = records.succeeded("done")
    page.goto(f"/#/jobs/{job_id}")
    expect(page.get_by_role("heading", name="done", exact=True)).to_be_visible()
    figures = page.locator(".figures")
    for text in (
        "91.2%",
        "+21.2 ± 3.4 points",
        "4.90\u00a0MB",
        "81.7% of the limit of 6.0\u00a0MB; 5.00\u00a0MB predicted",
        "12.3\u00a0M",
    ):
        expect(figures).to_contain_text(text)
    expect(page.locator(".steps .done")).to_have_count(5)
    charts = page.get_by_role("img", name=re.compile("trials|Peak|epoch"))
    expect(charts).to_have_count(4)
    for chart in charts.all():
        assert is_drawn(chart)
    expect(charts.first).to_have_attribute("aria-label", re.compile("24 trials.*6.0\u00a0MB"))
    expect(button(page, "Download 6\u00a0B")).to_be_visible()
    expect(page).to_have_title("done · tinyfit")


def test_how_sure_gain_and_choice_are(page: Page, records: Records) -> None:
    page.goto(f"/#/jobs/{records.succeeded(trials=24, num_reused=4, is_gain_noise=True)}")
    expect(page.locator(".certainty")).to_have_text(
        "Best of 24 within the limits that were scored to the end; 6 others are within noise. It "
        "is the best with a probability of 41%, as far as the validation images tell. 4 scores "
        "came from an earlier job."
    )
    expect(page.locator(".banner")).to_contain_text("The gain over head-only training is within")
    page.goto(f"/#/jobs/{records.succeeded(trials=24, num_compared=None)}")
    expect(page.locator(".certainty")).to_contain_text("Best of those within the limits")
    expect(page.locator(".certainty")).not_to_contain_text("earlier")
    expect(page.locator(".banner")).to_have_count(0)
    page.goto(f"/#/jobs/{records.succeeded(trials=24, num_compared=1)}")
    expect(page.locator(".certainty")).to_contain_text("The only one within the limits")


def memory_rows(page: Page, count: int) -> list[str]:
    rows = card(page, "Memory at its peak").get_by_role("row")
    expect(rows).to_have_count(count)
    return [row.replace("\t", " ").strip() for row in rows.all_inner_texts()][1:]


def test_memory_is_told_by_part(page: Page, records: Records) -> None:
    page.goto(f"/#/jobs/{records.succeeded()}")
    assert memory_rows(page, 10) == [
        "Program: frozen weights and operations 0.55\u00a0MB",
        "Trained values 1.00\u00a0MB",
        "Optimizer state 2.00\u00a0MB",
        "Activations, gradients, temporaries 1.10\u00a0MB",
        "Trainer, stack, C library 0.35\u00a0MB",
        "Predicted 5.00\u00a0MB",
        "Measured 4.90\u00a0MB",
        "Torch's allocator, measured 5.10\u00a0MB",
        "Limit 6.00\u00a0MB",
    ]
    memory = card(page, "Memory at its peak")
    expect(memory).to_contain_text("the whole process on the device")
    expect(memory).to_contain_text("trained by the device trainer")
    figures = page.locator(".figures")
    expect(figures).to_contain_text("torch's allocator 5.10\u00a0MB")


def test_of_an_earlier_job_the_memory_is_torchs(page: Page, records: Records) -> None:
    page.goto(f"/#/jobs/{records.succeeded(is_old=True)}")
    assert memory_rows(page, 12) == [
        "Frozen weights 0.50\u00a0MB",
        "Trained values 1.00\u00a0MB",
        "Optimizer state 2.00\u00a0MB",
        "Activations kept for backward 0.40\u00a0MB",
        "Activations in passing 1.00\u00a0MB",
        "Inside operators 0.03\u00a0MB",
        "The batch 0.05\u00a0MB",
        "Small tensors 0.02\u00a0MB",
        "Predicted 5.00\u00a0MB",
        "Measured 4.90\u00a0MB",
        "Limit 6.00\u00a0MB",
    ]
    expect(card(page, "Memory at its peak")).to_contain_text("What torch's allocator holds")


def test_charts_have_tables_beside(page: Page, records: Records) -> None:
    page.goto(f"/#/jobs/{records.succeeded(trials=3)}")
    trials = card(page, "Trials")
    trials.get_by_text("As a table").click()
    expect(trials.get_by_role("row")).to_have_count(4)
    expect(trials.get_by_role("row").last).to_contain_text("3 (best)")
    learning = card(page, "Learning")
    learning.get_by_text("As a table").click()
    expect(learning.get_by_role("row").nth(3)).to_contain_text("90.0%, 0.500")


def test_the_chosen_network_is_drawn_block_by_block(
    page: Page, records: Records, database: Database
) -> None:
    job_id = records.succeeded(trials=1)
    result = get_job(database, job_id).result
    assert result is not None
    page.goto(f"/#/jobs/{job_id}")
    stages = card(page, "The chosen network").locator(".network > li")
    expect(stages).to_have_count(6)
    for index, depth in enumerate(result["subnet"]["depths"]):
        blocks = stages.nth(index).locator("li")
        expect(blocks).to_have_count(depth)
        kernel_size = result["subnet"]["kernel_sizes"][4 * index]
        expect(blocks.first).to_contain_text(f"{kernel_size}\u00d7{kernel_size}")


def test_the_method_that_the_search_chose_stands_beside_the_one_asked_for(
    page: Page, records: Records, database: Database
) -> None:
    job_id = records.succeeded(trials=1)
    page.goto(f"/#/jobs/{job_id}")
    result = get_job(database, job_id).result
    assert result is not None
    settings = card(page, "Settings")
    expect(settings).to_contain_text("auto: trains biases, and lite residual modules where")
    expect(settings).to_contain_text(f"{result['method']}: trains biases")
    expect(card(page, "The chosen network")).to_contain_text("Its training changes biases")


def test_the_supernet_that_the_images_chose_stands_with_what_was_looked_at(
    page: Page, records: Records
) -> None:
    job = records.queued(supernet=AUTO_SUPERNET)
    page.goto(f"/#/jobs/{job.id}")
    facts = card(page, "Settings")
    expect(facts).to_contain_text("auto: your images choose")
    looks = [("efficientnet_lite0", 96, 1, 0.886, 0.013), (DEFAULT_SUPERNET, 64, 4, 0.61, 0.02)]
    names = ("supernet", "resolution", "epochs", "accuracy", "standard_error")
    probes = [dict(zip(names, look, strict=True)) for look in looks]
    choose_supernet(records.database, records.claim(), "efficientnet_lite0", probes)
    page.reload()
    expect(facts).to_contain_text("efficientnet_lite0, chosen by your images")
    expect(facts).to_contain_text(
        "efficientnet_lite0 at 96\u00a0px, 1 epoch: 88.6% ± 1.3%; "
        f"{DEFAULT_SUPERNET} at 64\u00a0px, 4 epochs: 61.0% ± 2.0%"
    )


def test_a_running_job_shows_stage_trials_and_time_left(page: Page, records: Records) -> None:
    claim = records.running("busy", trials=2)
    page.goto(f"/#/jobs/{claim.job_id}")
    expect(page.locator("[aria-current=step]")).to_contain_text("Search")
    expect(page.get_by_text("about 2\u00a0min left")).to_be_visible()
    expect(page.locator(".figures")).to_contain_text("2 of 16")
    records.add_trials(claim, 16)
    records.progress(claim, "train", 0.6)
    expect(page.locator(".figures")).to_contain_text("16 of 16")
    expect(page.locator("[aria-current=step]")).to_contain_text("Train")
    records.add_epochs(claim, "tinytl", 1)
    expect(card(page, "Learning")).to_be_visible()
    expect(card(page, "Memory at its peak")).to_contain_text("Predicted")
    expect(card(page, "Memory at its peak")).not_to_contain_text("Measured")


def test_the_log_tells_in_sentences_with_the_newest_in_sight(page: Page, records: Records) -> None:
    claim = records.running(trials=24)
    page.goto(f"/#/jobs/{claim.job_id}")
    log = page.get_by_role("log")
    expect(log).to_contain_text("Begins on board:1.")
    expect(log).to_contain_text("Search: subnets within the limit are scored.")
    expect(log).to_contain_text(re.compile("Trial 24: 88.3% of the validation images at "))
    expect(log).to_contain_text("25.0\u00a0M multiply-accumulates.")
    log.scroll_into_view_if_needed()
    records.log(claim, "24 images decoded")
    expect(log.get_by_text("24 images decoded.")).to_be_in_viewport()
    log.evaluate("box => box.scrollTo(0, 0)")
    wait_until(page, "() => document.querySelector('.log').scrollTop === 0")
    records.log(claim, "another line")
    expect(log).to_contain_text("Another line.")
    assert log.evaluate("box => box.scrollTop") == 0  # who reads is not moved


def test_the_log_tells_which_trials_were_given_up(page: Page, records: Records) -> None:
    claim = records.running()
    records.add_trials(claim, 2, num_given_up=1)
    page.goto(f"/#/jobs/{claim.job_id}")
    log = page.get_by_role("log")
    expect(log).to_contain_text("Trial 1: given up after 25 images, 50.0% of them right, at ")
    expect(log).to_contain_text("Trial 2: 70.0% of the validation images at ")


def test_a_search_against_time_counts_its_trials(page: Page, records: Records) -> None:
    records.queued(time_limit_seconds="90m", mac_limit="20M")
    claim = records.claim()
    records.add_trials(claim, 3)
    page.goto(f"/#/jobs/{claim.job_id}")
    figures = page.locator(".figures")
    expect(figures).to_contain_text("Trials3scored, for 1\u00a0h 30\u00a0min at most")
    expect(figures).to_contain_text("limit 20.0\u00a0M")
    settings = card(page, "Settings")
    for text in (
        "Samplerpredictor: an accuracy predictor",
        "Time limit1\u00a0h 30\u00a0min",
        "Compute limit20.0\u00a0M multiply-accumulates",
        "Patience64\u00a0trials without progress",
        "Hopeless trialsare given up early",
    ):
        expect(settings).to_contain_text(text)


def test_polling_leaves_focus_open_tables_and_scroll_alone(page: Page, records: Records) -> None:
    claim = records.running(trials=6)
    page.goto(f"/#/jobs/{claim.job_id}")
    table = card(page, "Trials")
    table.get_by_text("As a table").click()
    table.get_by_text("As a table").focus()
    before = page.evaluate("scrollY")
    records.add_trials(claim, 7)
    records.progress(claim, "train", 0.6)
    expect(table.get_by_role("row")).to_have_count(8)
    expect(table.get_by_text("As a table")).to_be_focused()
    assert page.evaluate("scrollY") == pytest.approx(before, abs=60)


def test_a_failed_job_says_why_and_can_be_retried(page: Page, records: Records) -> None:
    page.goto(f"/#/jobs/{records.failed(error='the disk is full')}")
    expect(page.locator(".banner")).to_have_text("The disk is full")
    button(page, "Retry").click()
    expect(page.locator(".badge")).to_have_text("Queued")
    expect(page.get_by_text("Waits for a worker, to go on where it was.")).to_be_visible()


def test_attempts_name_their_workers(page: Page, records: Records) -> None:
    claim = records.running(trials=1)
    records.lost(claim)
    records.claim(worker="board:2")
    page.goto(f"/#/jobs/{claim.job_id}")
    attempts = card(page, "Attempts").get_by_role("listitem")
    expect(attempts).to_have_count(2)
    expect(attempts.first).to_contain_text("board:1")
    expect(attempts.first).to_contain_text("Its worker or process died")
    expect(attempts.last).to_contain_text("board:2")
    expect(attempts.last).to_contain_text("Works on it")


def test_pause_and_resume(page: Page, records: Records, database: Database) -> None:
    claim = records.running()
    page.goto(f"/#/jobs/{claim.job_id}")
    button(page, "Pause").click()
    expect(page.locator(".badge")).to_have_text("Pausing")
    assert get_job(database, claim.job_id).stop_request is StopRequest.PAUSE
    records.stopped(claim)
    expect(page.locator(".badge")).to_have_text("Paused")
    button(page, "Resume").click()
    expect(page.locator(".badge")).to_have_text("Queued")


def test_a_pause_can_be_taken_back(page: Page, records: Records) -> None:
    claim = records.running()
    page.goto(f"/#/jobs/{claim.job_id}")
    button(page, "Pause").click()
    expect(page.locator(".badge")).to_have_text("Pausing")
    button(page, "Resume").click()
    expect(page.locator(".badge")).to_have_text("Running")
    log = page.get_by_role("log")
    expect(log).to_contain_text("Its worker is asked to pause.")
    expect(log).to_contain_text("Its worker is no longer asked to stop.")


def test_cancel_asks_first(page: Page, records: Records, database: Database) -> None:
    claim = records.running()
    page.goto(f"/#/jobs/{claim.job_id}")
    button(page, "Cancel").click()
    button(page, "Let it go on").click()
    expect(button(page, "Cancel")).to_be_focused()
    assert get_job(database, claim.job_id).stop_request is None
    button(page, "Cancel").click()
    button(page, "Cancel the job").click()
    expect(page.locator(".badge")).to_have_text("Cancelling")
    records.stopped(claim)
    expect(page.locator(".badge")).to_have_text("Cancelled")
    assert get_job(database, claim.job_id).status is Status.CANCELLED


def test_delete_asks_first_and_leads_to_the_list(
    page: Page, records: Records, watch: Watch
) -> None:
    watch.expected.append("404")  # a poll may cross the deletion
    job_id = records.succeeded("done", trials=1)
    records.queued("other")
    page.goto(f"/#/jobs/{job_id}")
    button(page, "Delete").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    button(page, "Delete").click()
    button(page, "Delete for good").click()
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="other")).to_be_visible()
    expect(page.get_by_role("link", name="done")).to_have_count(0)


def test_a_refused_action_is_told(
    page: Page, records: Records, database: Database, watch: Watch
) -> None:
    watch.expected.append("409")
    job_id = records.failed()
    page.goto(f"/#/jobs/{job_id}")
    expect(button(page, "Retry")).to_be_visible()
    page.route("**/retry", lambda route: (records.retried(job_id), route.continue_())[1])
    button(page, "Retry").click()
    expect(page.get_by_role("alert")).to_contain_text("is queued")


def test_an_unknown_job_is_told(page: Page, records: Records, watch: Watch) -> None:
    watch.expected.append("404")
    page.goto("/#/jobs/none")
    expect(page.get_by_role("heading", name="There is no such job")).to_be_visible()
