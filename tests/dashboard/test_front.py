"""What a job's page tells of the front: how much accuracy can be had from how much memory on."""

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from service.views.results import EndView, FrontPoint, FrontView
from tests.dashboard.conftest import wait_until
from tests.dashboard.records import LIMIT_BYTES, Records

_PLAN = {
    "batch_size": 8,
    "optimizer_bits": 8,
    "trained_bits": 32,
    "stretches": [{"from_stage": 0, "micro_batch_size": 1, "recomputes": False}],
}


def card(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def point(trial: int, peak_bytes: int, accuracy: float, **more: Any) -> FrontPoint:
    return FrontPoint(
        **{
            "trial": trial,
            "peak_bytes": peak_bytes,
            "plan": _PLAN,
            "slowdown": 1.6,
            "macs": 3_900_000,
            "resolution": 48,
            "method": "lite_residual+bias",
            "lite_residual": {"groups": 2, "max_kernel_size": 5},
            "subnet": {},
            "validation_accuracy": accuracy,
            "standard_error": 0.02,
            "is_chosen": False,
            **more,
        }
    )


def show_front(page: Page, *points: FrontPoint, largest_bytes: int = 9_400_000) -> None:
    """The page is given this front of every job."""
    front = FrontView(
        limit_bytes=LIMIT_BYTES,
        mac_limit=None,
        smallest=EndView(peak_bytes=2_800_000, macs=3_100_000, resolution=32),
        largest=EndView(peak_bytes=largest_bytes, macs=41_000_000, resolution=48),
        points=list(points),
    )
    body = front.model_dump_json()
    page.route("**/front", lambda route: route.fulfill(body=body, content_type="application/json"))


def chart(page: Page) -> Locator:
    return card(page, "Trials").get_by_role("img")


def drawn(page: Page) -> list[dict[str, Any]]:
    """The datasets of the trials' chart, and whether each is a line."""
    found: list[dict[str, Any]] = chart(page).evaluate(
        """canvas => Chart.getChart(canvas).data.datasets.map((set) => ({
            isLine: set.showLine === true,
            stepped: set.stepped,
            points: set.data.map(({ x, y }) => [x, y]),
            fills: [set.backgroundColor].flat(),
            edges: [set.borderColor].flat(),
        }))"""
    )
    return found


def told(page: Page, trial: int) -> list[str]:
    """The lines beside a trial's point under the pointer."""
    position = chart(page).evaluate(
        """(canvas, number) => {
            const chart = Chart.getChart(canvas);
            for (const [index, { data }] of chart.data.datasets.entries()) {
                const at = data.findIndex(({ trial }) => trial?.number === number);
                if (at < 0) continue;
                const { x, y } = chart.getDatasetMeta(index).data[at];
                return { x, y };
            }
        }""",
        trial,
    )
    chart(page).hover(position=position)
    wait_until(page, "() => Chart.getChart(document.querySelector('canvas')).tooltip.opacity > 0")
    lines: list[str] = chart(page).evaluate(
        """canvas => {
            const { title, body } = Chart.getChart(canvas).tooltip;
            return [...title, ...body.flatMap(({ lines }) => lines)];
        }"""
    )
    return [line.replace("\u00a0", " ") for line in lines]


def test_its_ends_are_told_before_anything_is_scored(page: Page, records: Records) -> None:
    show_front(page)
    page.goto(f"/#/jobs/{records.queued().id}")
    expect(card(page, "Trials")).to_contain_text(
        "Networks go from 2.8\u00a0MB (32\u00a0px, 3.1\u00a0M\u00a0MACs) to 9.4\u00a0MB (48"
    )
    expect(chart(page)).to_have_attribute(
        "aria-label", re.compile("The smallest feasible network takes 2.8\u00a0MB")
    )
    lines = chart(page).evaluate(
        """canvas => Chart.getChart(canvas).options.plugins.marks.lines.map(
            ({ label, value }) => [label, value])"""
    )
    assert lines == [
        ["limit 6.0\u00a0MB", 6],
        ["smallest feasible 2.8\u00a0MB", 2.8],
        ["largest 9.4\u00a0MB", 9.4],
    ]
    expect(card(page, "What less memory would cost")).to_have_count(0)


def test_the_service_tells_the_ends_of_a_job_that_waits(page: Page, records: Records) -> None:
    page.goto(f"/#/jobs/{records.queued().id}")
    expect(card(page, "Trials")).to_contain_text(
        re.compile(r"Networks go from \d+\.\d\s[kM]B \(32\spx, .* to \d+\.\d\sMB \(48\spx, ")
    )


def test_it_is_a_staircase_out_to_the_limit(page: Page, records: Records) -> None:
    show_front(page, point(0, 3_000_000, 0.5), point(2, 4_500_000, 0.75, is_chosen=True))
    page.goto(f"/#/jobs/{records.succeeded(trials=3)}")
    expect(card(page, "Trials").get_by_text("front", exact=True)).to_be_visible()
    (line,) = (found for found in drawn(page) if found["isLine"])
    assert line["stepped"] == "before"
    assert line["points"] == [[3, 50], [4.5, 75], [6, 75]]


@pytest.mark.parametrize(
    ("largest_bytes", "end"),
    [(6_600_000, 6.6), (60_000_000, 7.2), (3_500_000, 6.0), (2_900_000, 5.8)],
)
def test_the_axis_has_limit_and_largest_unless_they_are_far_apart(
    page: Page, records: Records, largest_bytes: int, end: float
) -> None:
    show_front(page, largest_bytes=largest_bytes)
    page.goto(f"/#/jobs/{records.queued().id}")
    expect(chart(page)).to_be_visible()
    most = chart(page).evaluate("canvas => Chart.getChart(canvas).scales.x.max")
    assert most == pytest.approx(end * 1.03)


def test_points_tell_error_memory_compute_pace_and_plan(page: Page, records: Records) -> None:
    show_front(page, point(3, 4_500_000, 0.8, is_chosen=True))
    page.goto(f"/#/jobs/{records.succeeded(trials=4, num_reused=1, num_given_up=1)}")
    card(page, "Trials").get_by_text("As a table").click()
    rows = card(page, "Trials").get_by_role("row")
    expect(rows.nth(1)).to_contain_text("scored by an earlier job")
    expect(rows.nth(2)).to_contain_text("given up after 25 images")
    expect(rows.nth(4)).to_contain_text(re.compile(r"4 \(best\).*80\.0%\s±\s4\.0.*5\.0\sM"))
    on_front = told(page, 3)
    assert re.fullmatch(r"Trial 4, \d\d px", on_front[0])
    assert "80.0% ± 4.0 of the validation images" in on_front
    assert "5.0 M multiply-accumulates an image" in on_front
    assert "Leanest plan: 1.6\u00d7 the step time." in on_front
    assert any(line.startswith("All layers: ") for line in on_front)
    assert any(re.fullmatch(r"\d\.\d\d MB at its peak", line) for line in on_front)
    off_front = told(page, 1)
    assert "Given up after 25 images" in off_front
    assert "60.0% ± 9.1 of the validation images" in off_front
    assert not any("step time" in line for line in off_front)


def test_given_up_trials_are_hollow_and_never_the_best(page: Page, records: Records) -> None:
    claim = records.running()
    records.add_trials(claim, 3, num_reused=2, num_given_up=1)
    show_front(page)
    page.goto(f"/#/jobs/{claim.job_id}")
    legend = card(page, "Trials").locator(".legend")
    for text in ("given up early", "from an earlier job", "best so far"):
        expect(legend).to_contain_text(text)
    expect(legend).not_to_contain_text("front")
    sets = drawn(page)
    fills = [fill for found in sets for fill in found["fills"]]
    assert fills.count("transparent") == 2  # the ring, and the one that was given up
    text_colour = "#1a1f27"
    edges = [edge for found in sets for edge in found["edges"]]
    assert edges.count(text_colour) == 3  # the ring, and two of an earlier job
    expect(page.locator(".figures")).to_contain_text("1 of 16")
    expect(page.locator(".figures")).to_contain_text("2 more by an earlier job")
    expect(page.locator(".figures")).to_contain_text("trial 2")  # the third has more, so far


def test_what_less_memory_would_cost(page: Page, records: Records) -> None:
    show_front(
        page,
        point(0, 2_900_000, 0.4, macs=None, standard_error=None),
        point(1, 3_000_000, 0.5),
        point(2, 4_400_000, 0.75, slowdown=2.04, macs=12_340_000),
        point(3, 5_000_000, 0.75, is_chosen=True),
    )
    page.goto(f"/#/jobs/{records.succeeded(trials=4)}")
    cost = card(page, "What less memory would cost")
    expect(cost).to_contain_text(
        "Nothing fits in 25% of the limit: the smallest network takes 2.8\u00a0MB."
    )
    shown = [re.sub(r"\s+", " ", row).strip() for row in cost.get_by_role("row").all_inner_texts()]
    assert shown == [
        "Memory Accuracy MACs Step time",
        "5.00 MB chosen 75.0% ± 2.0 3.9 M 48 px 1.6\u00d7",
        "4.40 MB within 75% 75.0% ± 2.0 as accurate 12.3 M 48 px 2.0\u00d7",
        "3.00 MB within 50% 50.0% ± 2.0 \u221225.0 points 3.9 M 48 px 1.6\u00d7",
        "2.90 MB leanest 40.0% \u221235.0 points \u2013 48 px 1.6\u00d7",
    ]


def test_a_job_of_an_earlier_version_still_shows(page: Page, records: Records) -> None:
    job_id = records.succeeded(is_old=True)
    page.goto(f"/#/jobs/{job_id}")
    figures = page.locator(".figures")
    for text in ("91.2%", "+21.2 points", "4.90\u00a0MB", "Predicted peak5.00\u00a0MB"):
        expect(figures).to_contain_text(text)
    expect(figures).not_to_contain_text("±")
    expect(page.locator(".certainty")).to_have_count(0)
    card(page, "Trials").get_by_text("As a table").click()
    expect(card(page, "Trials").get_by_role("row").last).to_contain_text("88.3%\u2013")
    expect(card(page, "Trials").locator(".legend")).not_to_contain_text("early")
