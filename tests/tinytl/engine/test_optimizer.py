import pytest
import torch

from tinytl.accounting.layers.optimizer import state_bytes, update_bytes
from tinytl.description.chunks import ADAM_CHUNK_VALUES, MIN_8BIT_VALUES, has_8bit_moments
from tinytl.engine.optimizer import Adam
from tinytl.errors import BundleError
from tinytl.measurement.tracker import allocator_peak_bytes

_MODES = [(bits, dtype) for bits in (32, 8) for dtype in (torch.float32, torch.bfloat16)]
_LARGE = ADAM_CHUNK_VALUES + 1000  # a second chunk, and a last block that is not full


def _random(*shape, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, **options)


def _moments(optimizer, name):
    """Both moments of a tensor as floats, by the definition of the code."""
    state = optimizer.state_tensors()
    moments = []
    for kind, top, power in (("first_moment", 127, 4), ("second_moment", 255, 8)):
        values = state[f"{kind}.{name}"]
        if not values.is_floating_point():
            scales = state[f"{kind}_scales.{name}"].double()
            roots = scales.repeat_interleave(256)[: len(values)] * values / top
            values = roots.abs() ** power * roots.sign()
        moments.append(values)
    return moments


def _step(optimizer, gradients, learning_rate=1e-2):
    optimizer.begin_step(learning_rate)
    for name, gradient in gradients.items():
        optimizer.update(name, gradient.clone())


def test_32_bits_are_torchs_adam():
    own = {
        "large": _random(_LARGE, dtype=torch.float64),
        "image": _random(8, 4, 3, 3, dtype=torch.float64).to(memory_format=torch.channels_last),
        "scalar": _random(dtype=torch.float64),
    }
    theirs = {name: tensor.clone() for name, tensor in own.items()}
    reference = torch.optim.Adam(theirs.values(), foreach=False)
    optimizer = Adam(own)
    for step in range(20):
        gradients = {name: _random(*t.shape, seed=step).to(t) for name, t in own.items()}
        gradients["image"] = gradients["image"].to(memory_format=torch.channels_last)
        for name, tensor in theirs.items():
            tensor.grad = gradients[name].clone()
        reference.param_groups[0]["lr"] = 1e-2 / (step + 1)
        reference.step()
        _step(optimizer, gradients, 1e-2 / (step + 1))
    for name, tensor in own.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-12, atol=1e-12)


def test_8_bits_follow_gradients_that_fall_and_rise_tenfold():
    sizes = torch.exp(2 * _random(MIN_8BIT_VALUES, seed=1))
    weights = {bits: torch.zeros(MIN_8BIT_VALUES) for bits in (32, 8)}
    optimizers = {bits: Adam({"w": weights[bits]}, state_bits=bits) for bits in weights}
    for scale in (1.0, 0.1, 1.0):
        before = {bits: tensor.clone() for bits, tensor in weights.items()}
        for step in range(500):
            gradient = scale * sizes * (_random(MIN_8BIT_VALUES, seed=step) + 0.1)
            for optimizer in optimizers.values():
                _step(optimizer, {"w": gradient}, 1e-3)
        ratio = (_moments(optimizers[8], "w")[1] / _moments(optimizers[32], "w")[1]).sqrt()
        assert ratio.median().item() == pytest.approx(1, abs=0.03)
        assert (ratio - 1).abs().median() < 0.1
        moved, exact = (weights[bits] - before[bits] for bits in (8, 32))
        assert (moved @ exact / (exact @ exact)).item() == pytest.approx(1, abs=0.03)


def test_8_bits_do_not_explode_beside_an_outlier():
    weight = torch.zeros(MIN_8BIT_VALUES)
    optimizer = Adam({"w": weight}, state_bits=8)
    gradient = 1e-6 * _random(MIN_8BIT_VALUES)
    gradient[::256] = 1e4
    for _ in range(50):
        _step(optimizer, {"w": gradient}, 1e-3)
        assert torch.all(_moments(optimizer, "w")[1] > 0)
    assert weight.abs().max() < 1.1 * 50 * 1e-3


@pytest.mark.parametrize("bits", [32, 8])
def test_bfloat16_moves_by_updates_below_its_precision(bits):
    weight = torch.full((_LARGE,), -1.0, dtype=torch.bfloat16)
    optimizer = Adam({"w": weight}, state_bits=bits)
    for _ in range(100):
        _step(optimizer, {"w": torch.ones_like(weight)}, 1e-4)  # half a step is 2e-3
    assert weight.double().mean().item() == pytest.approx(-1.01, abs=5e-4)


@pytest.mark.parametrize(("bits", "dtype"), _MODES)
def test_resuming_gives_the_same_bits_without_the_global_generator(bits, dtype):
    weights = {"large": _random(_LARGE).to(dtype), "small": _random(10).to(dtype)}
    optimizer = Adam(weights, state_bits=bits, seed=3)
    gradients = {name: _random(len(t), seed=1).to(dtype) for name, t in weights.items()}
    _step(optimizer, gradients)
    resumed_weights = {name: tensor.clone() for name, tensor in weights.items()}
    state = {name: tensor.clone() for name, tensor in optimizer.state_tensors().items()}
    before = torch.get_rng_state()
    _step(optimizer, gradients)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    resumed = Adam(resumed_weights, state_bits=bits, seed=3)
    resumed.load_state(state)
    _step(resumed, gradients)
    for name, tensor in weights.items():
        assert torch.equal(tensor, resumed_weights[name])
    for name, tensor in optimizer.state_tensors().items():
        assert torch.equal(tensor, resumed.state_tensors()[name])


def _without(state, name):
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda s: _without(s, "step"), "step"),
        (lambda s: _without(s, "second_moment_scales.w"), "second_moment_scales.w"),
        (lambda s: {**s, "second_moment.w": s["second_moment.w"][1:]}, "second_moment.w"),
        (lambda s: {**s, "first_moment.w": s["first_moment.w"].float()}, "first_moment.w"),
    ],
)
def test_a_damaged_state_is_refused_whole(damage, named):
    optimizer = Adam({"w": torch.zeros(MIN_8BIT_VALUES)}, state_bits=8)
    _step(optimizer, {"w": _random(MIN_8BIT_VALUES)})
    fresh = Adam({"w": torch.zeros(MIN_8BIT_VALUES)}, state_bits=8)
    with pytest.raises(BundleError, match=named):
        fresh.load_state(damage(optimizer.state_tensors()))
    assert not any(torch.any(tensor != 0) for tensor in fresh.state_tensors().values())


def test_a_tensor_is_updated_once_a_step():
    optimizer = Adam({"a": torch.zeros(3), "b": torch.zeros(3)})
    optimizer.begin_step(1e-3)
    optimizer.update("a", torch.ones(3))
    with pytest.raises(KeyError):
        optimizer.update("a", torch.ones(3))
    with pytest.raises(AssertionError, match="b"):
        optimizer.begin_step(1e-3)


@pytest.mark.parametrize("size", [1, MIN_8BIT_VALUES - 1, MIN_8BIT_VALUES, 5001, _LARGE])
@pytest.mark.parametrize(("bits", "dtype"), _MODES)
def test_memory_is_as_predicted(bits, dtype, size):
    weight = torch.zeros(size, dtype=dtype)
    optimizer = Adam({"w": weight}, state_bits=bits)
    state = _without(optimizer.state_tensors(), "step").values()
    assert sum(tensor.nbytes for tensor in state) == state_bytes(size, bits)
    assert has_8bit_moments(size, bits) == (bits == 8 and size >= MIN_8BIT_VALUES)

    gradient = torch.ones(size)
    optimizer.begin_step(1e-3)
    standing = allocator_peak_bytes(lambda: None)
    measured = allocator_peak_bytes(lambda: optimizer.update("w", gradient)) - standing
    predicted = update_bytes(size, bits, 16 if dtype == torch.bfloat16 else 32)
    assert measured <= predicted <= 1.1 * measured + 4096
