"""A whole step of the device trainer against the torch engine in double precision."""

import copy

import numpy as np
import pytest
import torch

from tests.tinytl.native.device_library import Device
from tinytl.description.method import Method
from tinytl.description.plan import Plan, Stretch
from tinytl.engine.ops.normalize import normalize
from tinytl.engine.optimizer import Adam
from tinytl.engine.step import Batch, run_step
from tinytl.native.program import ProgramSettings, compile_program
from tinytl.native.unroll import inverted, stem_block, units
from tinytl.native.unroll.parameters import Parameters, in_device_order

RESOLUTION = 32
CLASSES = ("a", "b", "c")
WHOLE = Plan.whole(4)
MICRO_BATCHES = Plan.whole(4, 2)
LEAN = Plan(
    batch_size=4,
    stretches=(
        Stretch(micro_batch_size=1),
        Stretch(from_stage=2, micro_batch_size=2, recomputes=True),
        Stretch(from_stage=3, micro_batch_size=4),
    ),
)
"""Early stages keep their tapes for the whole batch, the next recompute."""
METHODS = (Method.HEAD, Method.BIAS, Method.LITE_RESIDUAL, Method.LITE_RESIDUAL_BIAS)
PLANS = {"whole": WHOLE, "micro-batches": MICRO_BATCHES, "stretches": LEAN}


def compiled(network, plan, **settings):
    return compile_program(
        network,
        plan,
        resolution=RESOLUTION,
        image_size=40,
        classes=CLASSES,
        settings=ProgramSettings(**settings),
    )


def random_batch(num_images, seed=1):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (num_images, 3, RESOLUTION, RESOLUTION), dtype=np.uint8)
    return images, rng.integers(0, 3, num_images)


def engine_gradients(network, plan, images, labels, dtype, keep=None):
    network = copy.deepcopy(network).to(dtype)
    names = {parameter: name for name, parameter in network.trained_parameters().items()}
    found = {}
    batch = Batch(
        images=normalize(torch.from_numpy(images), network.config.normalization).to(dtype),
        labels=torch.from_numpy(labels),
        keep=None if keep is None else torch.from_numpy(keep).to(dtype),
        label_smoothing=0.1,
    )

    def finish(parameter, gradient):
        found[names[parameter]] = gradient.double().clone()

    return run_step(network, batch, plan, finish).double().sum().item(), found


def worst_error(found, reference):
    """The largest difference, as a share of the largest value of its tensor."""
    assert found.keys() == reference.keys()
    return max(
        ((found[name] - exact).abs().max() / exact.abs().max()).item()
        for name, exact in reference.items()
    )


CASES = [
    *((method, plan, {}) for method in METHODS for plan in ("whole", "stretches")),
    (Method.LITE_RESIDUAL_BIAS, "micro-batches", {}),
    (Method.LITE_RESIDUAL_BIAS, "stretches", {"mobilenet": True}),
    (Method.LITE_RESIDUAL, "whole", {"mobilenet": True}),
    (Method.LITE_RESIDUAL_BIAS, "whole", {"tensorflow": True}),
    (Method.BIAS, "stretches", {"tensorflow": True}),
    (Method.BIAS, "stretches", {"group_norm": True}),
    (Method.LITE_RESIDUAL_BIAS, "whole", {"group_norm": True}),
    (Method.LITE_RESIDUAL_BIAS, "stretches", {"group_norm": True, "mobilenet": True}),
]


@pytest.mark.parametrize(("method", "plan", "kind"), CASES)
def test_gradients_are_those_of_the_engine(library, make_network, method, plan, kind):
    plan = PLANS[plan]
    network = make_network(method, **kind)
    images, labels = random_batch(3)  # the last micro-batch is a smaller one
    device = Device(library, compiled(network, plan))
    loss = device.step(images, labels)
    expected_loss, exact = engine_gradients(network, plan, images, labels, torch.float64)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    # random networks are ill-conditioned, those with group norms most
    assert worst_error(device.gradients(network), exact) < (
        2e-4 if kind.get("group_norm") else 3e-5
    )


@pytest.mark.parametrize("kind", [{}, {"tensorflow": True}, {"mobilenet": True}], ids=str)
def test_it_makes_no_difference_how_much_of_a_map_is_there_at_a_time(
    library, make_network, monkeypatch, kind
):
    """Not a bit: nothing but memory and time depends on it."""
    network = make_network(Method.LITE_RESIDUAL_BIAS, **kind)
    found = []
    for stem_channels, pooled_channels, large_floats in (
        (16, 256, 1 << 17),
        (8, 8, 0),
        (24, 40, 1 << 30),
        (None, 1 << 16, 1 << 30),
    ):
        monkeypatch.setattr(units, "POOLED_CHANNELS", pooled_channels)
        monkeypatch.setattr(inverted, "_LARGE_FLOATS", large_floats)
        if stem_channels is None:
            monkeypatch.setattr("tinytl.native.unroll.step.joined", list)
        else:
            monkeypatch.setattr(stem_block, "STEM_CHANNELS", stem_channels)
        device = Device(library, compiled(network, LEAN))
        loss = sum(device.step(*random_batch(4, seed=seed)) for seed in range(2))
        values = device.arena[: device.program.numbers["state_bytes"]].tobytes()
        found.append((loss, values, device.logits(random_batch(1)[0][0]).tobytes()))
    assert found == found[:1] * len(found)


def test_errors_are_no_larger_than_those_of_floats(library, make_network):
    """Of the engine in single precision, three times over at most, tensor by tensor on average."""
    network = make_network(Method.LITE_RESIDUAL_BIAS)
    images, labels = random_batch(4)
    device = Device(library, compiled(network, LEAN))
    device.step(images, labels)
    _, exact = engine_gradients(network, LEAN, images, labels, torch.float64)
    _, rounded = engine_gradients(network, LEAN, images, labels, torch.float32)
    assert worst_error(device.gradients(network), exact) < 3 * worst_error(rounded, exact)


def test_dropout_closes_features_both_ways(library, make_network):
    network = make_network(Method.BIAS, dropout_rate=0.25)
    images, labels = random_batch(4)
    kept = np.random.default_rng(5).random((4, network.classifier.in_features)) >= 0.25
    device = Device(library, compiled(network, WHOLE))
    loss = device.step(images, labels, keep=kept)
    expected, exact = engine_gradients(
        network, WHOLE, images, labels, torch.float64, keep=kept / 0.75
    )
    assert loss == pytest.approx(expected, rel=1e-5)
    assert worst_error(device.gradients(network), exact) < 3e-5


@pytest.mark.parametrize("mobilenet", [False, True], ids=["proxyless", "mobilenetv3"])
def test_logits_are_those_of_the_engine(library, make_network, mobilenet):
    network = make_network(Method.LITE_RESIDUAL_BIAS, mobilenet=mobilenet)
    images, _ = random_batch(2)
    device = Device(library, compiled(network, WHOLE))
    for image in images:
        expected = network(torch.from_numpy(image)[None])[0].numpy()
        np.testing.assert_allclose(device.logits(image), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [(8, 32), (8, 16), (32, 16)])
def test_values_move_as_those_of_the_engine(library, make_network, bits):
    """Where a gradient is next to nothing, Adam makes a whole step of its rounding error; and the
    device holds weights in another order, so that noise and blocks fall on other ones."""
    plan = Plan(
        batch_size=4,
        stretches=WHOLE.stretches,
        optimizer_bits=bits[0],
        trained_bits=bits[1],
    )
    network = make_network(Method.LITE_RESIDUAL_BIAS)
    network.store_trained(plan.trained_bits)
    device = Device(library, compiled(network, plan, seed=7))
    layout = Parameters(network, plan.optimizer_bits, reserved_classes=0).by_name
    parameters = network.trained_parameters()
    names = {parameter: name for name, parameter in parameters.items()}
    before = {name: in_device_order(p.detach()).clone() for name, p in parameters.items()}
    optimizer = Adam(parameters, state_bits=plan.optimizer_bits, seed=7)
    for step in range(3):
        images, labels = random_batch(4, seed=step)
        device.step(images, labels, learning_rate=2e-3)
        batch = Batch(
            images=torch.from_numpy(images), labels=torch.from_numpy(labels), label_smoothing=0.1
        )
        optimizer.begin_step(2e-3)
        run_step(network, batch, plan, lambda p, gradient: optimizer.update(names[p], gradient))
    for name, parameter in parameters.items():
        expected = in_device_order(parameter.detach()).flatten().float()
        moved = (expected - before[name].flatten().float()).abs().mean()
        off = (values_of(device, layout[name]) - expected).abs().mean()
        assert off < (0.5 if layout[name].is_bfloat16 else 0.2) * moved, name


def values_of(device, parameter):
    at = parameter.values.offset
    content = device.arena[at : at + parameter.values.num_bytes]
    if parameter.is_bfloat16:
        return torch.from_numpy(content.view(np.int16).copy()).view(torch.bfloat16).float()
    return torch.from_numpy(content.view(np.float32).copy())
