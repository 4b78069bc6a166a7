"""How far a job is and how long it will take, by a clock of the test's own."""

import pytest

from service.work.job.progress import Progress, Stage

WORK = {
    Stage.INGEST: 10.0,
    Stage.ADAPT: 20.0,
    Stage.SEARCH: 30.0,
    Stage.TRAIN: 30.0,
    Stage.EXPORT: 10.0,
}


class Told:
    """A progress, the clock that it goes by, and all that it wrote."""

    def __init__(self) -> None:
        self.seconds = 1_000.0
        self.written: list[tuple[Stage, float, float | None]] = []
        self.progress = Progress(
            WORK, lambda *told: self.written.append(told), clock=lambda: self.seconds
        )

    def work(self, stage: Stage, seconds_per_work: float, start: float = 0.0) -> None:
        """Go through a stage evenly, from a share of it on, in ten reports."""
        work = WORK[stage] * (1 - start)
        for step in range(11):
            if step:
                self.seconds += seconds_per_work * work / 10
            self.progress.report(stage, start + (1 - start) * step / 10, 1.0)

    @property
    def seconds_left(self) -> float | None:
        return self.written[-1][2]


@pytest.fixture
def told() -> Told:
    return Told()


def test_steady_work_ends_when_it_was_said_to(told: Told) -> None:
    told.progress.report(Stage.INGEST, 0, 10)
    assert told.written == [(Stage.INGEST, 0.0, None)]
    for stage in Stage:
        told.work(stage, 2.0)
    ends = 1_000.0 + 2.0 * 100
    assert told.seconds == pytest.approx(ends)
    assert told.written[-1] == (Stage.EXPORT, pytest.approx(1.0), pytest.approx(0.0))
    shares = [share for _, share, _ in told.written]
    assert shares == sorted(shares)


def test_at_every_moment_of_steady_work_the_estimate_is_the_time_that_is_left(told: Told) -> None:
    estimates: list[tuple[float, float]] = []
    told.progress.report(Stage.INGEST, 0, 10)
    for stage in Stage:
        before = len(told.written)
        start = told.seconds
        told.work(stage, 2.0)
        for _, share, left in told.written[before + 1 :]:
            assert left is not None
            estimates.append((left, 200.0 * (1 - share)))
        assert told.seconds == pytest.approx(start + 2.0 * WORK[stage])
    assert len(estimates) > 40
    for estimate, left in estimates:
        assert estimate == pytest.approx(left, abs=1e-6)


def test_a_stage_goes_by_its_own_pace_and_later_ones_by_that_so_far(told: Told) -> None:
    told.work(Stage.INGEST, 1.0)
    told.work(Stage.ADAPT, 1.0)
    told.progress.report(Stage.SEARCH, 0, 3)
    assert told.seconds_left == pytest.approx(70.0)
    told.seconds += 50.0  # a third of the search: 10 of work, five times as slow
    told.progress.report(Stage.SEARCH, 1, 3)
    overall = 80.0 / 40.0
    assert told.seconds_left == pytest.approx(5.0 * 20.0 + overall * 40.0)


def test_a_resumed_attempt_does_not_count_what_was_there_already(told: Told) -> None:
    """It begins in the middle; the first half took it no time at all."""
    told.progress.report(Stage.SEARCH, 15, 30)
    assert told.written == [(Stage.SEARCH, pytest.approx(0.45), None)]
    told.seconds += 30.0
    told.progress.report(Stage.SEARCH, 20, 30)
    assert told.seconds_left == pytest.approx(6.0 * (10.0 + 40.0))


def test_other_work_is_counted_anew(told: Told) -> None:
    """Half of what was to come is dropped; the pace is that of all that is done."""
    told.progress.report(Stage.ADAPT, 0, 20)
    told.seconds += 10.0
    told.progress.replan({**WORK, Stage.SEARCH: 15.0, Stage.TRAIN: 15.0})
    told.progress.report(Stage.ADAPT, 10, 20)
    assert told.written[-1] == (Stage.ADAPT, pytest.approx(20 / 70), pytest.approx(50.0))


def test_what_was_there_already_may_be_known_late(told: Told) -> None:
    """The stage has begun when its first training is found to be half done."""
    told.progress.report(Stage.TRAIN, 0.0, 1.0)
    told.seconds += 1.0
    told.progress.resume(Stage.TRAIN, 0.5, 1.0)
    assert told.written[-1] == (Stage.TRAIN, pytest.approx(0.75), None)
    told.seconds += 30.0
    told.progress.report(Stage.TRAIN, 0.6, 1.0)
    assert told.seconds_left == pytest.approx(10.0 * (12.0 + 10.0))


def test_it_is_written_now_and_then_and_at_each_end(told: Told) -> None:
    for step in range(1, 9):
        told.seconds += 0.25
        told.progress.report(Stage.ADAPT, step, 8)
    assert [share for _, share, _ in told.written] == [0.125, 0.175, 0.225, 0.275, 0.3]
    told.progress.report(Stage.SEARCH, 0, 10)
    assert told.written[-1][0] is Stage.SEARCH


def test_a_clock_that_stands_still_tells_nothing(told: Told) -> None:
    told.progress.report(Stage.INGEST, 0, 10)
    told.progress.report(Stage.INGEST, 10, 10)
    assert told.seconds_left is None


def test_a_search_by_time_is_estimated_to_end_with_its_time(told: Told) -> None:
    """As it is told how much of the time has gone; the stages after it go by the pace so far."""
    told.progress.report(Stage.SEARCH, 0, 60)
    for seconds in (10, 25, 59):
        told.seconds = 1_000.0 + seconds
        told.progress.report(Stage.SEARCH, seconds, 60)
        left = 60 - seconds
        assert told.seconds_left == pytest.approx(left + 60 / 30 * 40)
