import pytest

from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.errors import CancelledError
from tinytl.measurement.measure import measure_in_fresh_process


def test_a_fresh_process_measures_what_was_predicted(small_network):
    plan = Plan.whole(4, 2)
    steps = []
    found = measure_in_fresh_process(
        small_network(),
        Method.LITE_RESIDUAL_BIAS,
        plan,
        48,
        on_step=lambda: steps.append(1),
    )
    assert len(steps) >= 9  # three runs of three steps
    assert 0.8 * found.predicted_peak_bytes < found.measured_peak_bytes
    assert found.measured_peak_bytes <= found.predicted_peak_bytes
    assert sum(found.breakdown_bytes.values()) == found.predicted_peak_bytes
    assert found.step_seconds > 0


def test_whoever_hears_of_a_step_can_end_the_measuring(small_network, tmp_path):
    """Nothing of it stays."""

    def cancel():
        assert any(tmp_path.iterdir())
        raise CancelledError("no more")

    with pytest.raises(CancelledError, match="no more"):
        measure_in_fresh_process(
            small_network(),
            Method.LITE_RESIDUAL_BIAS,
            Plan.whole(4, 2),
            48,
            scratch=tmp_path,
            on_step=cancel,
        )
    assert list(tmp_path.iterdir()) == []
