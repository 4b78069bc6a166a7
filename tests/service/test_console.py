import io

import pytest

from service.console import Meter, format_seconds
from service.progress import Progress, SplitSizes, Stage, stage_work
from service.schemas import JobSettings


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


def test_progress_counts_the_work_of_all_stages() -> None:
    work = stage_work(JobSettings(), SplitSizes(train=100, val=20, test=20))
    written: list[tuple[Stage, float]] = []
    progress = Progress(work, lambda stage, share: written.append((stage, share)))
    for stage in Stage:
        for done in range(101):
            progress.report(stage, done, 100)
    shares = [share for _, share in written]
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] == pytest.approx(1.0)
    assert {stage for stage, _ in written} == set(Stage)
    assert len(written) < 30
