"""Each measure sees what it should of buffers hidden in a small training step, and no more."""

import gc
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from tinytl.measurement.tracker import (
    StorageTracker,
    allocator_peak_bytes,
    live_tensor_bytes,
    measure_peaks,
    storage_peak_bytes,
)

_PLANTED_BYTES = 10_000_000
_NUM_FLOATS = _PLANTED_BYTES // 4
_CUDA = torch.device("cuda")


def _training_step(plant=lambda model: None):
    """A function that trains a small network for one step, with something hidden in its middle."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(model.parameters())
    images = torch.rand(4, 8, generator=generator)

    def step():
        loss = model(images).square().sum()
        loss.backward()
        hidden = plant(model)
        optimizer.step()
        optimizer.zero_grad()
        model.hidden = None
        return hidden

    step()  # Adam's state is made
    return step


def _attribute(model):
    model.hidden = torch.empty(_NUM_FLOATS)


def _closure(model):
    kept = torch.empty(_NUM_FLOATS)
    return lambda: kept


def _resized_storage(model):
    model.hidden = torch.empty(0)
    model.hidden.untyped_storage().resize_(_PLANTED_BYTES)


def _resized_and_shrunk_storage(model):
    tensor = torch.empty(0)
    tensor.untyped_storage().resize_(_PLANTED_BYTES)
    tensor.untyped_storage().resize_(0)


def _resized_tensor(model):
    model.hidden = torch.empty(0).resize_(_NUM_FLOATS)


def _resized_by_out(model):
    model.hidden = torch.empty(0)
    torch.add(torch.zeros(1).expand(_NUM_FLOATS), 1, out=model.hidden)


def _nested_output(model):
    model.hidden = torch._foreach_add([torch.zeros(1).expand(_NUM_FLOATS)], 1)


def _temporary(model):
    """The median copies its input, here one number seen many times over."""
    torch.zeros(1).expand(_NUM_FLOATS).median()


def _array(model):
    model.hidden = np.ones(_PLANTED_BYTES, dtype=np.uint8)


def _tensor_of_an_array(model):
    model.hidden = torch.from_numpy(np.ones(_PLANTED_BYTES, dtype=np.uint8))


@pytest.mark.parametrize(
    ("plant", "storage", "allocator"),
    [
        (_attribute, 1, 1),
        (_closure, 1, 1),
        (_resized_storage, 1, 1),
        (_resized_and_shrunk_storage, 1, 1),
        (_resized_tensor, 1, 1),
        (_resized_by_out, 1, 1),
        (_nested_output, 1, 1),
        (_temporary, 0, 1),
        (_array, 0, 0),
        (_tensor_of_an_array, 1, 0),
    ],
)
def test_a_hidden_buffer_is_seen_by_the_right_measures(plant, storage, allocator):
    step = _training_step()
    without = measure_peaks(step)
    del step
    found = measure_peaks(_training_step(plant))
    tolerance = 0.01 * _PLANTED_BYTES
    expected = pytest.approx(storage * _PLANTED_BYTES, abs=tolerance)
    assert found.storage_bytes - without.storage_bytes == expected
    expected = pytest.approx(allocator * _PLANTED_BYTES, abs=tolerance)
    assert found.allocator_bytes - without.allocator_bytes == expected


_RESIDENT_SCRIPT = f"""
import json
import numpy as np
import torch
from tinytl.measurement.tracker import resident_memory

model = torch.nn.Linear(8, 8)
hidden = []
plants = {{
    "nothing": lambda: None,
    "tensor": lambda: torch.ones({_NUM_FLOATS}),
    "array": lambda: np.ones({_PLANTED_BYTES}, dtype=np.uint8),
    "untouched": lambda: torch.empty({_NUM_FLOATS}),
}}
def step(plant):
    model(torch.ones(4, 8)).sum().backward()
    hidden.append(plant())
step(lambda: torch.ones(1))
np.ones({10 * _PLANTED_BYTES}, dtype=np.uint8)  # freed, but the process's peak
found = {{name: resident_memory(lambda: step(plant)) for name, plant in plants.items()}}
print(json.dumps({{n: f and (f.growth_bytes, f.process_peak_bytes) for n, f in found.items()}}))
"""


def test_resident_memory_sees_tensors_and_arrays_that_are_written():
    answer = subprocess.run(
        [sys.executable, "-c", _RESIDENT_SCRIPT], capture_output=True, text=True, check=True
    )
    found = json.loads(answer.stdout.splitlines()[-1])
    if found["nothing"] is None:
        pytest.skip("this platform does not tell resident memory")
    for name, planted in (("nothing", 0), ("tensor", 1), ("array", 1), ("untouched", 0)):
        expected = pytest.approx(planted * _PLANTED_BYTES, abs=0.1 * _PLANTED_BYTES)
        assert found[name][0] == expected, name
    total, later = found["nothing"][1], found["untouched"][1]
    assert total - later == pytest.approx(8 * _PLANTED_BYTES, rel=0.1)


def test_the_instruments_do_not_import_torchs_compiler():
    """It takes seconds and memory, in every process that measures."""
    script = (
        "import sys, torch; from tinytl.measurement.tracker import measure_peaks\n"
        "measure_peaks(lambda: torch.ones(3) + 1)\n"
        "print('torch._dynamo' in sys.modules, 'torch._inductor' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split()[-2:] == ["False", "False"]


def _peak_over_start(run):
    before = storage_peak_bytes(lambda: None)
    return storage_peak_bytes(run) - before


def test_what_is_freed_first_is_not_summed():
    def run():
        for _ in range(3):
            torch.zeros(_NUM_FLOATS)

    assert _peak_over_start(run) == _PLANTED_BYTES


def test_a_gradient_graph_keeps_what_it_needs_until_it_is_gone():
    def run():
        weight = torch.ones(_NUM_FLOATS, requires_grad=True)
        loss = weight.exp().exp().sum()  # two activations that only the graph holds
        loss.backward()

    # at the inner exp: weight, its activation, and two gradients; beside them the loss and its own
    assert _peak_over_start(run) == 4 * _PLANTED_BYTES + 8


def test_an_activation_that_only_an_earlier_graph_holds_counts_when_it_is_read():
    weight = torch.ones(_NUM_FLOATS, requires_grad=True)
    loss = weight.exp().sum()
    # the activation and the gradient of the weight; beside them the gradient of the loss
    assert _peak_over_start(loss.backward) == 2 * _PLANTED_BYTES + 4


def test_a_tensor_of_another_thread_counts_when_it_is_read():
    def run():
        with ThreadPoolExecutor(1) as pool:
            batch = pool.submit(torch.ones, _NUM_FLOATS).result()
        batch.sum()

    assert _peak_over_start(run) == _PLANTED_BYTES + 4


def test_views_and_storages_over_one_memory_count_once():
    def run():
        tensor = torch.ones(_NUM_FLOATS)
        return tensor[1:], torch.from_numpy(tensor.numpy())[5:]

    assert _peak_over_start(run) == _PLANTED_BYTES
    before = live_tensor_bytes()
    tensor = torch.ones(_NUM_FLOATS)
    views = [tensor[i:] for i in range(3)]
    assert live_tensor_bytes() - before == _PLANTED_BYTES
    del views


def test_what_was_alive_before_counts_until_it_is_freed():
    gc.collect()
    without = measure_peaks(lambda: None)
    held = [torch.ones(_NUM_FLOATS)]
    parameter = nn.Parameter(torch.ones(3))
    parameter.sum().backward()  # a gradient that Python has not touched
    alive = measure_peaks(lambda: None)
    assert alive.storage_bytes - without.storage_bytes == _PLANTED_BYTES + 24
    assert alive.allocator_bytes - without.allocator_bytes == _PLANTED_BYTES + 24

    def replace():
        held.clear()
        held.append(torch.ones(_NUM_FLOATS))

    assert storage_peak_bytes(replace) == alive.storage_bytes


def test_meta_and_fake_tensors_do_not_count():
    def run():
        meta = torch.ones(_NUM_FLOATS, device="meta") + 1
        with FakeTensorMode():
            return meta, torch.ones(_NUM_FLOATS) + 1

    assert _peak_over_start(run) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is mapped")
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize(("mode", "counted"), [("r", 0), ("r+", 0), ("c", 1)])
def test_the_pages_of_a_mapped_file_do_not_count(tmp_path, mode, counted):
    """Those of a private mapping do: they become the process's own when they are written to."""
    np.save(tmp_path / "images.npy", np.ones(_PLANTED_BYTES, dtype=np.uint8))
    images = np.load(tmp_path / "images.npy", mmap_mode=mode)
    found = _peak_over_start(lambda: torch.from_numpy(images)[:3] + 1)
    assert found == pytest.approx(counted * _PLANTED_BYTES, rel=0.01, abs=1000)


def test_the_history_tells_what_was_alive_at_the_peak():
    kept = torch.ones(_NUM_FLOATS)
    with StorageTracker(keep_history=True) as tracker:
        gone = torch.ones(_NUM_FLOATS)
        del gone
        with tracker.label("middle"):
            larger = torch.zeros(2, _NUM_FLOATS)
        del larger
        torch.ones(7)
    first, second, *others = tracker.at_peak()
    assert (first.storage_bytes, first.shape) == (2 * _PLANTED_BYTES, (2, _NUM_FLOATS))
    assert (first.operator, first.label) == ("aten.zeros.default", "middle")
    assert (second.storage_bytes, second.label) == (kept.nbytes, "")
    assert sum(e.storage_bytes for e in tracker.at_peak()) == tracker.peak_bytes
    assert all(e.storage_bytes < _PLANTED_BYTES for e in others)
    assert tracker.at_peak(1) == (first,)


@pytest.mark.parametrize("measure", [storage_peak_bytes, allocator_peak_bytes])
def test_nothing_stays_active_after_a_failed_run(measure):
    def run():
        torch.empty(0).untyped_storage().resize_(8)
        raise KeyError("as planned")

    with pytest.raises(KeyError, match="as planned"):
        measure(run)
    assert not _get_current_dispatch_mode_stack()
    assert "resize_" not in vars(torch.UntypedStorage)
    assert not torch.autograd._profiler_enabled()


def test_a_tracker_inside_a_tracker():
    with StorageTracker() as outer, StorageTracker() as inner:
        resized = torch.empty(0)
        resized.untyped_storage().resize_(_PLANTED_BYTES)
    assert outer.peak_bytes == inner.peak_bytes >= resized.untyped_storage().nbytes()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_peaks():
    without = measure_peaks(lambda: None, _CUDA)
    found = measure_peaks(lambda: torch.ones(_NUM_FLOATS, device=_CUDA), _CUDA)
    assert found.storage_bytes - without.storage_bytes == _PLANTED_BYTES
    expected = pytest.approx(_PLANTED_BYTES, abs=0.25 * _PLANTED_BYTES)
    assert found.allocator_bytes - without.allocator_bytes == expected
