"""Stock trainings in fresh processes, at figures that are known."""

from dataclasses import replace

import pytest

from benchmarks.memory.stock_memory import (
    measure_inception_in_fresh_process,
    measure_stock_in_fresh_process,
)
from search.space.spec import proxyless_mobile
from tinytl.description.config import GROUP_NORM, with_lite_residuals
from tinytl.description.method import Method


def test_published_method_takes_what_was_found_for_it():
    """Live tensors of lite_residual+bias at 224 pixels, batch 8, 102 classes: 580.0 MB."""
    norm = GROUP_NORM
    network = replace(with_lite_residuals(proxyless_mobile()), norm=norm, num_classes=102)
    found = measure_stock_in_fresh_process(
        network, Method.LITE_RESIDUAL_BIAS, batch_size=8, resolution=224
    )
    assert found.storage_peak_bytes == pytest.approx(580.0e6, abs=0.05e6)
    assert found.allocator_peak_bytes >= found.storage_peak_bytes


@pytest.mark.slow
def test_inception_trains_all_its_weights():
    """Weights, gradients and Adam's two moments of 21,785,568 + 2 * 2,049 values at the least."""
    found = measure_inception_in_fresh_process(batch_size=2, resolution=75, num_classes=2)
    assert found.storage_peak_bytes >= 4 * 4 * (21_785_568 + 2 * 2_049)
