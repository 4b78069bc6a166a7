"""What trains a finished job's network further, on the job's page."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from service.api.routes import devices
from tests.dashboard.conftest import Watch
from tests.dashboard.records import Records
from tests.dashboard.test_job import card
from tinytl.native.build import TARGETS, BuildError

NEEDS = {"arena_bytes": 5_000_000, "mapped_bytes": 800_000}
BUILT = "aarch64-linux-musl"


@pytest.fixture
def _is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trainer"
    path.write_bytes(bytes(121_000))
    monkeypatch.setattr(devices, "built_trainer", lambda target: path if target == BUILT else None)

    def fail(target: str) -> Path:
        raise BuildError("the compiler 'cc' failed")

    monkeypatch.setattr(devices, "build_trainer", fail)


@pytest.mark.usefixtures("_is_built")
def test_devices_with_size_and_memory(page: Page, records: Records, watch: Watch) -> None:
    page.goto(f"/#/jobs/{records.succeeded(program_detail=NEEDS)}")
    panel = card(page, "On the device")
    rows = panel.locator("tbody tr")
    expect(rows).to_have_count(len(TARGETS) - 1)
    built = rows.filter(has_text=BUILT)
    expect(built).to_contain_text("121.0\u00a0kB")
    expect(built).to_contain_text("6.07\u00a0MB")
    expect(rows.filter(has_text="riscv64")).to_contain_text("not built yet")
    watch.expected.append("409")
    built.get_by_role("button").click()
    expect(panel.get_by_role("alert")).to_have_text(
        "the trainer can't be built: the compiler 'cc' failed"
    )


@pytest.mark.usefixtures("_is_built")
def test_an_earlier_job_says_less(page: Page, records: Records) -> None:
    page.goto(f"/#/jobs/{records.succeeded()}")
    expect(card(page, "On the device").locator("tbody tr").first).not_to_contain_text("MB")


def test_without_a_compiler_the_page_says_what_to_install(
    page: Page, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find() -> None:
        raise BuildError("no C compiler was found: pip install 'tinyfit[device]' brings one")

    monkeypatch.setattr("tinytl.native.build.find_compiler", find)
    page.goto(f"/#/jobs/{records.succeeded(program_detail=NEEDS)}")
    panel = card(page, "On the device")
    expect(panel).to_contain_text("pip install 'tinyfit[device]'")
    expect(panel.get_by_role("button")).to_have_count(0)
