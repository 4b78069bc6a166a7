"""The memory benchmark's rows, on made-up measurements."""

from benchmarks.memory.cases import Case, describe, leanest_plan, plans
from benchmarks.memory.pace import Pace, pace_of
from benchmarks.memory.stock_memory import StockMeasurement
from benchmarks.memory.training import Point, Row, curve_bar
from tinytl.accounting.memory import peak_memory
from tinytl.description.method import Method
from tinytl.description.plan import Plan, Stretch
from tinytl.measurement.measure import Measurement

_MB = 10**6


def _ours(peak_bytes: int) -> Measurement:
    return Measurement(
        predicted_peak_bytes=peak_bytes,
        measured_peak_bytes=peak_bytes,
        storage_peak_bytes=peak_bytes,
        rss_growth_bytes=None,
        process_peak_bytes=None,
        step_seconds=1,
        breakdown_bytes={},
    )


def _pace(ratio: float) -> Pace:
    return Pace(stock_step_seconds=1, step_seconds=ratio, ratio=ratio)


def _row(norm: str) -> Row:
    stock = StockMeasurement(
        storage_peak_bytes=90 * _MB,
        allocator_peak_bytes=100 * _MB,
        rss_growth_bytes=120 * _MB,
    )
    return Row(
        case=Case(method=Method.BIAS, norm=norm),
        published_bytes=30 * _MB,
        stock=stock,
        plan=Plan.whole(8, 1),
        ours=_ours(10 * _MB),
        pace=_pace(1.25),
    )


def test_pace_is_of_neighbouring_steps():
    assert pace_of([(1, 2), (10, 10), (2, 6)]) == Pace(
        stock_step_seconds=2, step_seconds=6, ratio=2
    )


def test_row_says_what_was_measured():
    cells = _row("batch").cells
    assert cells[:7] == ["batch", "bias", "30.0", "90.0", "100.0", "120.0", "1.00"]
    assert cells[7:] == ["1; 32/32", "10.0", "10.0", "10.0", "unknown", "1.25", "1.25"]


def test_bar_takes_the_leanest_plan_that_is_quick_enough():
    fast, lean, slow = plans(8)[:3]
    curve = [
        Point(plan=plan, ours=_ours(megabytes * _MB), pace=_pace(ratio))
        for plan, megabytes, ratio in ((fast, 50, 1.0), (lean, 30, 2.5), (slow, 20, 2.6))
    ]
    bar = curve_bar(curve, ratio=2.5, limit_bytes=32 * _MB)
    assert (bar.plan, bar.met, bar.measured) == (lean, True, "30.0 MB at 2.50 x")
    assert not curve_bar(curve, ratio=2.5, limit_bytes=29 * _MB).met
    assert not curve_bar(curve, ratio=0.9, limit_bytes=99 * _MB).met


def test_leanest_plan_has_the_lowest_prediction():
    case = Case(method=Method.LITE_RESIDUAL_BIAS, resolution=96)
    peaks = {
        plan: peak_memory(case.network, case.method, plan, case.resolution).total_bytes
        for plan in plans(8)
    }
    assert peaks[leanest_plan(case)] == min(peaks.values()) < peaks[plans(8)[0]]


def test_plans_are_described_in_a_line():
    stretches = (
        Stretch(micro_batch_size=1, recomputes=True),
        Stretch(from_stage=3, micro_batch_size=8),
    )
    assert describe(Plan(stretches=stretches, optimizer_bits=8)) == "1r, 3: 8; 8/32"
