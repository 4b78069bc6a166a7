import gc
import subprocess
import sys

import pytest
import torch

from tinytl.tracker import allocator_peak_bytes, live_tensor_bytes

_PLANTED_BYTES = 10_000_000


def _float_buffer():
    return torch.empty(_PLANTED_BYTES // 4)


class _Holder:
    pass


def _attribute():
    holder = _Holder()
    holder.hidden = _float_buffer()
    return holder


def _resized_storage():
    tensor = torch.empty(0)
    tensor.untyped_storage().resize_(_PLANTED_BYTES)
    return tensor


@pytest.mark.parametrize("plant", [_attribute, _resized_storage])
def test_the_allocator_peak_sees_a_planted_buffer(plant):
    standing = live_tensor_bytes()
    found = allocator_peak_bytes(plant) - standing
    assert _PLANTED_BYTES <= found <= 1.01 * _PLANTED_BYTES


def test_the_allocator_peak_sees_a_temporary_inside_an_operator():
    """A product of floats and bools casts the bools to floats, out of Python's sight."""
    floats = _float_buffer()
    bools = torch.ones(floats.numel(), dtype=torch.bool)
    found = allocator_peak_bytes(lambda: floats * bools) - live_tensor_bytes()
    assert found >= 2 * _PLANTED_BYTES


def test_what_was_alive_before_counts():
    before = allocator_peak_bytes(lambda: None)
    planted = _float_buffer()
    assert allocator_peak_bytes(lambda: None) - before == planted.nbytes
    del planted
    gc.collect()
    assert allocator_peak_bytes(lambda: None) == before


def test_views_count_once():
    before = live_tensor_bytes()
    planted = _float_buffer()
    views = [planted[i:] for i in range(3)]
    assert live_tensor_bytes() - before == planted.nbytes
    del views


def test_resident_memory_sees_a_numpy_array():
    """In a fresh process: an old one has freed memory at hand that it may fill again."""
    script = (
        "import numpy as np; from tinytl.tracker import rss_growth_bytes; "
        f"print(rss_growth_bytes(lambda: np.ones({_PLANTED_BYTES}, dtype=np.uint8)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip()
    if answer == "None":
        pytest.skip("this platform does not tell resident memory")
    assert 0.9 * _PLANTED_BYTES <= int(answer) <= 2 * _PLANTED_BYTES
