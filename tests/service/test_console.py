import io
from datetime import UTC, datetime
from typing import Any

import pytest

from search.space.architecture import SupernetSpec
from search.supernets.registry import DEFAULT_SUPERNET
from service.console import Meter, describe_event, format_seconds, printable
from service.contract.requests import JobSettings
from service.contract.status import EventKind
from service.views.schemas import EventView
from service.work.job.progress import Progress, Stage
from service.work.job.workload import SplitSizes, Workload


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (59.4, "59 s"), (60, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert format_seconds(seconds) == words


def test_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    stream = io.StringIO()
    meter = Meter(stream)
    meter.show("search", 0.20)
    for _ in range(10):
        clock[0] += 1
        meter.show("search", 0.20 + (clock[0] - 100) * 0.02)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "search       20%"
    assert lines[1:] == [
        "search       30%   about 35 s left",
        "search       40%   about 30 s left",
    ]


def test_a_terminal_has_one_live_line() -> None:
    stream = Terminal()
    meter = Meter(stream)
    meter.show("search", 0.2)
    meter.show("train", 0.5)
    meter.close()
    assert stream.getvalue().count("\n") == 0
    assert stream.getvalue().endswith("\r")


def test_time_left_that_is_known() -> None:
    stream = io.StringIO()
    Meter(stream).show("search", 0.5, seconds_left=200)
    assert stream.getvalue() == "search       50%   about 3 min 20 s left\n"


def test_a_note_stays_above_the_live_line() -> None:
    stream = Terminal()
    meter = Meter(stream)
    meter.show("search", 0.2)
    meter.note("three images are small")
    meter.show("search", 0.3)
    assert stream.getvalue().split("\r")[-2:] == ["three images are small\n", "search       30%"]


EVENTS: dict[EventKind, tuple[dict[str, Any], str]] = {
    EventKind.STATUS: (
        {"status": "failed", "error": "no\nluck"},
        "failed: no\N{REPLACEMENT CHARACTER}luck",
    ),
    EventKind.REQUEST: ({"request": "pause"}, "asked to pause"),
    EventKind.STAGE: ({"stage": "adapt"}, "stage adapt"),
    EventKind.TRIAL: (
        {
            "number": 3,
            "resolution": 48,
            "predicted_peak_bytes": 5_000_000,
            "validation_accuracy": 0.5,
        },
        "trial 4: 48 px, 50.0% of the validation images right, peak 5.0 MB",
    ),
    EventKind.EPOCH: (
        {
            "training": "head_only",
            "epoch": 0,
            "num_epochs": 4,
            "train_loss": 0.25,
            "val_accuracy": 0.875,
            "seconds": 1.0,
        },
        "head only, epoch 1 of 4: loss 0.250, 87.5% of the validation images right",
    ),
    EventKind.LOG: ({"message": "as it goes"}, "as it goes"),
}


@pytest.mark.parametrize("kind", EventKind)
def test_events_in_words(kind: EventKind) -> None:
    detail, words = EVENTS[kind]
    made_at = datetime(2026, 1, 1, 12, 30, 5, tzinfo=UTC)
    event = EventView(number=1, kind=kind, detail=detail, attempt=1, created_at=made_at)
    clock = made_at.astimezone().strftime("%H:%M:%S")
    assert describe_event(event) == f"{clock}  {words}"


def test_a_request_that_was_taken_back() -> None:
    event = EventView(
        number=1,
        kind=EventKind.REQUEST,
        detail={"request": None},
        attempt=1,
        created_at=datetime.now(UTC),
    )
    assert describe_event(event).endswith("  no longer asked to stop")


def test_a_candidate_that_was_given_up() -> None:
    detail = EVENTS[EventKind.TRIAL][0] | {"is_complete": False, "num_images": 128}
    event = EventView(
        number=1, kind=EventKind.TRIAL, detail=detail, attempt=1, created_at=datetime.now(UTC)
    )
    assert describe_event(event).endswith(
        "50.0% of 128 validation images right, peak 5.0 MB, given up"
    )


def test_text_of_others_steers_no_terminal() -> None:
    assert printable("caf\u00e9 \x1b[2J\u202e") == "caf\u00e9 \ufffd[2J\ufffd"


def test_progress_counts_the_work_of_all_stages() -> None:
    spec = SupernetSpec.parse(DEFAULT_SUPERNET)
    sizes = SplitSizes(train=100, val=20, test=20)
    work = Workload.of(
        JobSettings(), spec.recipe, sizes, resolutions=spec.resolutions, look_epochs=[1, 1]
    ).stages
    written: list[tuple[Stage, float]] = []
    progress = Progress(work, lambda stage, share, seconds_left: written.append((stage, share)))
    for stage in Stage:
        for done in range(101):
            progress.report(stage, done, 100)
    shares = [share for _, share in written]
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] == pytest.approx(1.0)
    assert {stage for stage, _ in written} == set(Stage)
    assert len(written) < 30
