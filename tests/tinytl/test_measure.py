from tinytl.measure import measure_in_fresh_process
from tinytl.plan import Plan
from tinytl.trainable import Method


def test_a_fresh_process_measures_what_was_predicted(small_network):
    plan = Plan.whole(4, 2)
    found = measure_in_fresh_process(small_network(), Method.LITE_RESIDUAL_BIAS, plan, 48)
    assert 0.8 * found.predicted_peak_bytes < found.measured_peak_bytes
    assert found.measured_peak_bytes <= found.predicted_peak_bytes
    assert sum(found.breakdown_bytes.values()) == found.predicted_peak_bytes
    assert found.step_seconds > 0
