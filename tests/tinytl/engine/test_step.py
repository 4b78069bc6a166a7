"""A whole training step against plain autograd of the stock network, in double precision."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from benchmarks.memory.stock import stock_gradients, tinytl_name
from tinytl.description.config import GROUP_NORM
from tinytl.description.method import Method
from tinytl.description.plan import Plan, Stretch
from tinytl.engine.network import build_network
from tinytl.engine.ops.quantize import dequantize
from tinytl.engine.optimizer import Adam
from tinytl.engine.step import Batch, run_step
from tinytl.errors import DivergenceError

pytestmark = pytest.mark.long

PROXYLESS = "ofa_proxyless_d234_e346_k357_w0.35"
MOBILENETV3 = "ofa_mbv3_d234_e346_k357_w1.0"
FAMILIES = pytest.mark.parametrize("family", [PROXYLESS, MOBILENETV3], ids=["proxyless", "mbv3"])
GROUP_NORMS = pytest.mark.parametrize("group_norm", [False, True], ids=["batch", "group"])
METHODS = pytest.mark.parametrize("method", list(Method), ids=str)
_BATCH_SIZE = 8


def _plan(*stretches):
    return Plan(
        batch_size=_BATCH_SIZE,
        stretches=tuple(
            Stretch(from_stage=stage, micro_batch_size=size, recomputes=recomputes)
            for stage, size, recomputes in stretches
        ),
    )


_PLANS = {
    "whole": Plan.whole(_BATCH_SIZE),
    "one by one": Plan.whole(_BATCH_SIZE, 1),
    "ragged": Plan.whole(_BATCH_SIZE, 3),
    "three stretches": _plan((0, 1, True), (2, 3, False), (3, 8, False)),
    "recomputed late": _plan((0, 5, False), (1, 8, True), (4, 3, False)),
}


@pytest.fixture
def make(small_network, make_twins):
    """Our network and the stock one."""

    def make(family, method, *, group_norm=False):
        config = small_network(family, group_norm=group_norm, lite=method.uses_lite_residual)
        return make_twins(config, method)

    return make


def _batch(size=40, dtype=torch.float64):
    """Of 40 pixels, maps have 20, 10, 5, 3 and 2; of 32, down to 1."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(_BATCH_SIZE, 3, size, size, generator=generator, dtype=dtype)
    return Batch(images=images, labels=torch.arange(_BATCH_SIZE) * 3 % 5)


def _run(network, batch, plan, change=lambda parameter: None):
    """The images' losses, and the gradients by name; change is done to each that is finished."""
    names = {parameter: name for name, parameter in network.named_parameters()}
    found = {}

    def finish(parameter, gradient):
        assert names[parameter] not in found
        assert gradient.shape == parameter.shape
        found[names[parameter]] = gradient
        change(parameter)

    return run_step(network, batch, plan, finish), found


def _assert_close(found, expected, *, tolerance=1e-9):
    """Each tensor to within the tolerance times its largest value."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        scale = tensor.abs().max().clamp(min=1e-6)
        assert (found[name] - tensor).abs().max() / scale < tolerance, name


@FAMILIES
@GROUP_NORMS
@METHODS
def test_every_plan_gives_the_gradient_of_plain_autograd(make, family, group_norm, method):
    network, stock = make(family, method, group_norm=group_norm)
    batch = _batch()
    expected = stock_gradients(stock, batch.images, batch.labels)
    expected_losses = F.cross_entropy(stock(batch.images), batch.labels, reduction="none")
    assert expected.keys() == network.trained_parameters().keys()
    for plan in ("whole", "three stretches", "recomputed late"):
        losses, found = _run(network, batch, _PLANS[plan])
        torch.testing.assert_close(losses, expected_losses)
        _assert_close(found, expected)


@pytest.mark.parametrize(("size", "group_norm"), [(40, False), (40, True), (33, False)], ids=str)
@METHODS
def test_same_padding_gives_the_gradient_of_plain_autograd(
    lite0, make_twins, method, group_norm, size
):
    """Of even maps, of which one of 10 pixels is halved by a kernel of 5, and odd ones."""
    config = lite0(lite=method.uses_lite_residual, shallow=True)
    network, stock = make_twins(replace(config, norm=GROUP_NORM) if group_norm else config, method)
    batch = _batch(size)
    losses, found = _run(network, batch, _PLANS["three stretches"])
    torch.testing.assert_close(
        losses, F.cross_entropy(stock(batch.images), batch.labels, reduction="none")
    )
    _assert_close(found, stock_gradients(stock, batch.images, batch.labels))


@pytest.mark.parametrize("plan", _PLANS)
@FAMILIES
def test_dropout_and_label_smoothing(make, family, plan):
    network, stock = make(family, Method.LITE_RESIDUAL_BIAS)
    generator = torch.Generator().manual_seed(2)
    num_features = network.classifier.in_features
    keep = (torch.rand(_BATCH_SIZE, num_features, generator=generator) < 0.7).double() / 0.7
    batch = replace(_batch(), keep=keep, label_smoothing=0.1)
    losses, found = _run(network, batch, _PLANS[plan])
    stock.classifier.register_forward_pre_hook(lambda module, inputs: inputs[0] * keep)
    logits = stock(batch.images)
    expected = F.cross_entropy(logits, batch.labels, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(losses, expected)
    expected.mean().backward()
    trained = {tinytl_name(n): p.grad for n, p in stock.named_parameters() if p.requires_grad}
    _assert_close(found, trained)


@pytest.mark.parametrize("plan", ["whole", "three stretches", "recomputed late"])
@pytest.mark.parametrize("method", [Method.LITE_RESIDUAL_BIAS, Method.FULL], ids=str)
@FAMILIES
@GROUP_NORMS
def test_an_update_during_backward_changes_no_other_gradient(
    make, family, group_norm, method, plan
):
    network, _ = make(family, method, group_norm=group_norm)
    batch = _batch(size=32)
    _, expected = _run(network, batch, _PLANS[plan])
    _, found = _run(
        network, batch, _PLANS[plan], change=lambda parameter: parameter.fill_(torch.nan)
    )
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


@pytest.mark.parametrize("plan", _PLANS.values(), ids=_PLANS)
@pytest.mark.parametrize("method", [Method.HEAD, Method.FULL], ids=str)
def test_a_loss_that_is_not_finite_is_told_before_anything_is_finished(make, method, plan):
    network, _ = make(PROXYLESS, method)
    batch = _batch()
    batch.images[-1] = torch.inf
    finished = []
    with pytest.raises(DivergenceError, match="the loss became nan"):
        run_step(network, batch, plan, lambda parameter, gradient: finished.append(parameter))
    assert not finished


@METHODS
@FAMILIES
def test_eight_bit_weights_act_as_the_floats_they_stand_for(small_network, family, method):
    config = small_network(family, lite=method.uses_lite_residual)
    generator = torch.Generator().manual_seed(0)
    packed = build_network(config, method, generator=generator)
    wide = build_network(config, method, weight_bits=32)
    with torch.no_grad():
        for ours, theirs in zip(packed.modules(), wide.modules(), strict=True):
            if hasattr(ours, "scale"):
                theirs.weight.copy_(dequantize(ours.weight, ours.scale))
        for name, parameter in packed.named_parameters():
            wide.get_parameter(name).copy_(parameter)
    batch = _batch(dtype=torch.float32)
    plan = _PLANS["three stretches"]
    results = [_run(network, batch, plan) for network in (packed, wide)]
    torch.testing.assert_close(results[0][0], results[1][0])
    _assert_close(results[0][1], results[1][1], tolerance=1e-4)


@pytest.mark.parametrize("method", list(Method), ids=str)
@GROUP_NORMS
def test_bfloat16_weights_act_as_the_floats_they_stand_for(small_network, group_norm, method):
    config = small_network(group_norm=group_norm, lite=method.uses_lite_residual)
    network = build_network(config, method, generator=torch.Generator().manual_seed(0))
    network.store_trained(16)
    batch = _batch(dtype=torch.float32)
    narrow = _run(network, batch, _PLANS["three stretches"])
    weights = {name for name, p in network.named_parameters() if p.dtype == torch.bfloat16}
    assert weights == {n for n, p in network.trained_parameters().items() if p.dim() > 1}
    network.store_trained(32)
    wide = _run(network, batch, _PLANS["three stretches"])
    assert torch.equal(narrow[0], wide[0])
    _assert_close(narrow[1], wide[1], tolerance=1e-6)
    assert {gradient.dtype for gradient in narrow[1].values()} == {torch.float32}


@pytest.mark.parametrize(
    ("family", "group_norm", "method"),
    [
        *((PROXYLESS, False, method) for method in Method),
        (PROXYLESS, True, Method.FULL),
        (MOBILENETV3, False, Method.LITE_RESIDUAL_BIAS),
    ],
)
def test_six_steps_train_as_torch_does(make, family, group_norm, method):
    """How far each value moves: a folded norm's bias starts elsewhere than the stock one."""
    network, stock = make(family, method, group_norm=group_norm)
    ours = network.trained_parameters()
    theirs = {tinytl_name(n): p for n, p in stock.named_parameters() if p.requires_grad}
    starts = [{n: p.detach().clone() for n, p in side.items()} for side in (ours, theirs)]
    optimizer, reference = Adam(ours), torch.optim.Adam(theirs.values())
    names = {parameter: name for name, parameter in ours.items()}
    stretches = (
        Stretch(micro_batch_size=1, recomputes=True),
        Stretch(from_stage=2, micro_batch_size=2),
    )
    plan = Plan(batch_size=3, stretches=stretches)
    generator = torch.Generator().manual_seed(3)
    for step in range(6):
        images = torch.randn(3, 3, 32, 32, generator=generator, dtype=torch.float64)
        labels = torch.randint(5, (3,), generator=generator)
        rate = 1e-3 * (1 - step / 6)
        optimizer.begin_step(rate)
        batch = Batch(images=images, labels=labels)
        run_step(network, batch, plan, lambda p, gradient: optimizer.update(names[p], gradient))
        reference.param_groups[0]["lr"] = rate
        reference.zero_grad()
        F.cross_entropy(stock(images), labels).backward()
        reference.step()
    moved = [
        {name: (parameter - start[name]).detach() for name, parameter in side.items()}
        for side, start in zip((ours, theirs), starts, strict=True)
    ]
    assert all(tensor.abs().max() > 1e-3 for tensor in moved[0].values())
    _assert_close(*moved, tolerance=1e-6)
