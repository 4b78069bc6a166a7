"""The lite residual module against numerical gradients."""

import pytest
import torch

from tinytl.description.config import LiteResidualConfig, conv_size
from tinytl.engine.gradients import Gradients
from tinytl.engine.lite_residual import LiteResidual


def _module(**changes):
    config = {"in_channels": 8, "out_channels": 16, "kernel_size": 3} | changes
    return LiteResidual(LiteResidualConfig(**config))


@pytest.mark.parametrize("needs_input", [True, False])
@pytest.mark.parametrize("size", [(8, 8), (5, 7), (2, 3), (1, 1)], ids=str)
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="stride 1"),
        pytest.param({"stride": 2, "kernel_size": 5, "expand": 2.0}, id="stride 2"),
        pytest.param({"downsample_ratio": None, "kernel_size": 1}, id="global pool"),
    ],
)
def test_a_module_with_its_pooling(
    check_layer, randomized, random_map, changes, size, needs_input
):
    module = randomized(_module(**changes))
    out_size = torch.Size(conv_size(side, 3, module.config.stride) for side in size)

    def forward(x, tape):
        pooled = module.pool(x)
        if tape is not None:
            tape.append(pooled)
        return module.forward(pooled, out_size)

    def backward(grad, tape, gradients):
        before = grad.clone()
        grad_pooled = module.backward(grad, tape.pop(), gradients, needs_input=needs_input)
        assert torch.equal(grad, before)
        if grad_pooled is None:
            return None
        grad_x = torch.ones_like(x)
        module.add_pool_gradient_(grad_x, grad_pooled)
        return grad_x - 1

    x = random_map(2, 8, *size).requires_grad_(needs_input)
    check_layer(forward, backward, module, x)


@torch.no_grad()
def test_bfloat16_weights_act_as_the_floats_they_stand_for():
    generator = torch.Generator().manual_seed(0)
    narrow = _module()
    narrow.reset(generator)
    with torch.no_grad():
        narrow.final_bn.weight.fill_(1)
    for conv in (narrow.conv1, narrow.conv2):
        conv.weight.data = conv.weight.data.bfloat16()
    wide = _module()
    wide.load_state_dict(narrow.state_dict())
    x = torch.randn(2, 8, 6, 6, generator=generator).contiguous(memory_format=torch.channels_last)
    results = []
    for module in (narrow, wide):
        found = []
        y = module.forward(module.pool(x), x.shape[2:])
        gradients = Gradients(lambda parameter, gradient, found=found: found.append(gradient))
        module.backward(y, module.pool(x), gradients, needs_input=True)
        results.append([y, *found])
    assert narrow.conv1.weight.dtype == torch.bfloat16
    assert len(results[0]) == 7
    for ours, expected in zip(*results, strict=True):
        assert torch.equal(ours, expected)
