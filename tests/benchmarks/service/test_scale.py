import pytest

from benchmarks.service.scale import Constants, on_paper, paper, table, writes_per_second
from benchmarks.service.scale_pools import Row

CONSTANTS = Constants(
    scoring_seconds=0.2, proposing_seconds=0.1, overhead_seconds=0.01, writes_per_second=500
)


def test_one_processor_scores_most_of_the_time() -> None:
    found = paper(CONSTANTS, 1)
    assert found.jobs == 1
    assert found.busy == pytest.approx(0.8 / (0.8 + 0.1 + 0.04 + 0.008))
    assert found.scorings_per_second == pytest.approx(found.busy / 0.2)


def test_jobs_add_up_until_the_database_is_full() -> None:
    some, more, most = (paper(CONSTANTS, number) for number in (4, 40, 1000))
    assert (some.jobs, more.jobs, most.jobs) == (1, 10, 250)
    assert more.scorings_per_second == pytest.approx(10 * some.scorings_per_second)
    assert more.database_load < 1 < most.database_load
    assert most.scorings_per_second == 500


def test_tables_have_a_row_for_each() -> None:
    row = Row(
        pool="Ray",
        workers=2,
        scorings_per_second=9.26,
        overhead_seconds=0.0034,
        makespan_seconds=40.04,
    )
    assert list(table([row]))[-1] == "| Ray | 2 | 9.3 | 3.4 | 40.0 |"
    assert list(on_paper(CONSTANTS))[-1].startswith("| 1000 | 250 | ")


def test_trials_are_written_for_real() -> None:
    assert writes_per_second(None) > 1
