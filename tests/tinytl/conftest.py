from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.memory.padding import efficientnet_lite0
from benchmarks.memory.stock import StockNetwork
from search.elastic.ofa_package import build_elastic_network
from search.space.architecture import SupernetSpec
from tinytl.description.config import GROUP_NORM, with_lite_residuals
from tinytl.description.method import is_trained
from tinytl.engine.gradients import Gradients
from tinytl.engine.layers import FrozenWeight
from tinytl.engine.network import build_network
from tinytl.training.data import ImageStore, Sample, ingest

PROXYLESS = "ofa_proxyless_d234_e346_k357_w0.35"
MOBILENETV3 = "ofa_mbv3_d234_e346_k357_w1.0"


def small_network(supernet=PROXYLESS, *, num_classes=5, group_norm=False, lite=True):
    """The supernet's smallest subnet."""
    spec = SupernetSpec.parse(supernet)
    network = spec.network_config(spec.smallest, num_classes)
    if group_norm:
        network = replace(network, norm=GROUP_NORM)
    return with_lite_residuals(network) if lite else network


def lite0(*, num_classes=5, lite=False, shallow=False):
    """EfficientNet-Lite0: "same" padding, an input normalization of its own.

    shallow: one block a stage.
    """
    network = efficientnet_lite0(num_classes)
    if shallow:
        blocks = tuple(block for block in network.blocks if not block.shortcut)
        network = replace(network, blocks=blocks)
    return with_lite_residuals(network) if lite else network


def static_network(supernet, seed=0):
    """ofa's static network of the supernet's smallest subnet, every tensor made random."""
    spec = SupernetSpec.parse(supernet)
    elastic = build_elastic_network(spec, 5)
    smallest = spec.smallest
    elastic.set_active_subnet(
        ks=list(smallest.kernel_sizes), e=list(smallest.expand_ratios), d=list(smallest.depths)
    )
    static = elastic.get_active_subnet().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in static.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1, generator=generator)
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
    return static


def make_twins(config, method, seed=0):
    """Our network and the stock one, of the same random values, both in double precision.

    Ours folds norms and standardizes frozen weights in double precision too.
    """
    stock = StockNetwork(config, method)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in stock.state_dict().items():
            if tensor.dim() > 1:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
            elif name.endswith(("weight", "running_var")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.1, generator=generator)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with patch.object(torch.Tensor, "float", torch.Tensor.double):
            network = build_network(config, method, stock.state_dict(), weight_bits=32)
    finally:
        torch.set_default_dtype(before)
    return network, stock.double()


def random_map(*shape, seed=1, scale=2.0):
    """A channels-last map in double precision."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
    return x.contiguous(memory_format=torch.channels_last)


def randomized(module, method=None, name="blocks.0"):
    """The module in double precision with random values; trained is what the method trains.

    name: the module's in a network; method None trains everything.
    """
    generator = torch.Generator().manual_seed(0)
    module.double()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, FrozenWeight):
                weight = torch.randn(part.weight.shape, generator=generator, dtype=torch.float64)
                part.assign(weight / weight[0].numel() ** 0.5, None)
        values = [*module.named_parameters(), *module.named_buffers()]
        for key, value in values:
            if key.endswith(("gain", "inv_std", "bn1.weight", "final_bn.weight")):
                value.uniform_(0.5, 1.5, generator=generator)
            elif "frozen" not in key:
                scale = value[0].numel() ** -0.5
                value.normal_(0, scale, generator=generator)
    for key, parameter in module.named_parameters():
        parameter.requires_grad_(method is None or is_trained(f"{name}.{key}", method))
    return module


class _Explicit(torch.autograd.Function):
    """A function with a backward of its own, as autograd sees it; maps are channels last."""

    @staticmethod
    def forward(ctx, forward, backward, *inputs):
        ctx.backward = backward
        ctx.save_for_backward(*inputs)
        return forward(_copy(inputs[0]), *inputs[1:])

    @staticmethod
    def backward(ctx, grad):
        x, *rest = ctx.saved_tensors
        return None, None, *ctx.backward(_copy(grad), _copy(x), *rest)


def _copy(x):
    return x.clone(memory_format=torch.channels_last if x.dim() == 4 else torch.preserve_format)


def check_gradients(forward, backward, *inputs, fast=False):
    """gradcheck, in double precision, of forward(*inputs) and backward(grad, *inputs).

    backward returns a gradient for each input; inputs[0] is a map, and both may overwrite it.
    """
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(
        lambda *leaves: _Explicit.apply(forward, backward, *leaves), leaves, fast_mode=fast
    )


def check_layer(forward, backward, module, x):
    """gradcheck of forward(x, tape) and backward(grad, tape, gradients) by x and what is trained.

    forward has to leave x as it is, backward the tape empty. Where x needs no gradient, backward
    returns None.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]

    def run_forward(x, *_):
        before, y = x.clone(), forward(x, [])
        assert torch.equal(x, before)
        torch.testing.assert_close(forward(x, None), y)
        return y

    def run_backward(grad, x, *_):
        tape, found = [], {}
        forward(x, tape)
        grad_x = backward(grad, tape, Gradients(found.__setitem__))
        assert not tape
        assert found.keys() == set(trained)
        return grad_x, *(found[parameter] for parameter in trained)

    inputs = (x, *trained)
    assert torch.autograd.gradcheck(
        lambda *inputs: _Explicit.apply(run_forward, run_backward, *inputs), inputs, fast_mode=True
    )


@pytest.fixture(name="small_network")
def small_network_fixture():
    """The function above."""
    return small_network


@pytest.fixture(name="static_network")
def static_network_fixture():
    """The function above."""
    return static_network


@pytest.fixture
def store(tmp_path):
    """Two classes of plain images, told apart by colour: 12 to train on, 4 and 4 held out."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(20):
        pixels = rng.integers(0, 80, size=(40, 56, 3), dtype=np.uint8)
        pixels[..., number % 2] += 150
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path)
        split = "train" if number < 12 else "val" if number < 16 else "test"
        samples.append(Sample(path=path, label=number % 2, split=split))
    ingest(samples, ["red", "green"], tmp_path / "images", image_size=48)
    return ImageStore.open(tmp_path / "images")


def _fixture_of(function):
    return pytest.fixture(name=function.__name__)(lambda: function)


_lite0 = _fixture_of(lite0)
_make_twins = _fixture_of(make_twins)
_random_map = _fixture_of(random_map)
_randomized = _fixture_of(randomized)
_check_gradients = _fixture_of(check_gradients)
_check_layer = _fixture_of(check_layer)
