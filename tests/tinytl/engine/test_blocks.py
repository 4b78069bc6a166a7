"""Stem, block and tail against numerical gradients, by their input and all that they train."""

from functools import partial

import pytest
import torch

from tinytl.description.config import BlockConfig, LiteResidualConfig, NormConfig
from tinytl.description.method import Method
from tinytl.engine.blocks import Block, Stem, Tail
from tinytl.engine.gradients import Gradients
from tinytl.engine.layers import ConvUnit
from tinytl.engine.ops.normalize import normalize

METHODS = pytest.mark.parametrize("method", list(Method), ids=str)
NORMS = pytest.mark.parametrize(
    "norm",
    [NormConfig(), NormConfig(kind="group", weight_standardization_eps=1e-2)],
    ids=lambda norm: norm.kind,
)
_PLAIN = {"stride": 1, "has_expansion": True, "activation": "relu6"}
_BLOCKS = {
    "shortcut": {**_PLAIN, "shortcut": True},
    "no expansion": {**_PLAIN, "mid_channels": 8, "has_expansion": False},
    "stride": {**_PLAIN, "stride": 2, "activation": "relu"},
    "squeeze": {**_PLAIN, "squeeze_excite": True, "activation": "relu", "shortcut": True},
    "squeeze, h-swish": {**_PLAIN, "stride": 2, "squeeze_excite": True, "activation": "h_swish"},
}


def _block(kind, norm, method, weight_bits=8):
    options = {"mid_channels": 16, **_BLOCKS[kind]}
    module = LiteResidualConfig(
        in_channels=8, out_channels=8, kernel_size=3, stride=options["stride"]
    )
    config = BlockConfig(
        in_channels=8,
        out_channels=8,
        kernel_size=3,
        lite_residual=module if method.uses_lite_residual else None,
        **options,
    )
    return Block(config, norm, method, weight_bits)


@METHODS
@NORMS
@pytest.mark.parametrize("kind", _BLOCKS)
def test_a_block(check_layer, randomized, random_map, kind, norm, method):
    block = randomized(_block(kind, norm, method), method)
    x = random_map(2, 8, 5, 5).requires_grad_()
    check_layer(block.forward, partial(block.backward, needs_input=True), block, x)


@NORMS
@pytest.mark.parametrize("kind", _BLOCKS)
def test_the_first_block_that_learns(check_layer, randomized, random_map, kind, norm):
    """Only its lite residual does; nothing before it needs a gradient."""
    block = randomized(_block(kind, norm, Method.LITE_RESIDUAL), Method.LITE_RESIDUAL)
    x = random_map(2, 8, 6, 4)
    check_layer(block.forward, partial(block.backward, needs_input=False), block, x)


@torch.no_grad()
def test_a_frozen_block_keeps_bits_and_its_pooled_input(randomized, random_map):
    method = Method.LITE_RESIDUAL_BIAS
    block = randomized(_block("shortcut", NormConfig(), method), method)
    x, tape = random_map(2, 8, 6, 6), []
    block.forward(x, tape)
    kept = sum(item.nbytes for item in tape if isinstance(item, torch.Tensor))
    assert kept == 2 * (2 * 16 * 6 * 6) // 8 + x.nbytes // 4


@pytest.mark.parametrize("method", [Method.BIAS, Method.NORM_HEAD, Method.FULL], ids=str)
@NORMS
@pytest.mark.parametrize("activation", ["relu6", "h_swish"])
def test_a_stem(check_layer, randomized, random_map, method, norm, activation):
    unit = ConvUnit(
        3, 8, 3, method=method, weight_bits=8, stride=2, activation=activation, norm=norm
    )
    stem = Stem(randomized(unit, method, "first_conv"))
    backward = partial(stem.backward, needs_input=False)
    check_layer(stem.forward, backward, unit, random_map(2, 3, 6, 5))


@torch.no_grad()
@pytest.mark.parametrize("method", [Method.BIAS, Method.FULL], ids=str)
def test_a_stem_widens_bytes(randomized, method):
    """And keeps them as bytes, where it keeps them."""
    unit = ConvUnit(3, 8, 3, method=method, weight_bits=8, stride=2, norm=NormConfig())
    stem = Stem(randomized(unit, method, "first_conv").float())
    images = torch.randint(256, (2, 3, 6, 5), dtype=torch.uint8)
    bytes_tape, floats_tape = [], []
    found = stem.forward(images, bytes_tape)
    assert torch.equal(found, stem.forward(normalize(images), floats_tape))
    if method is Method.FULL:
        assert bytes_tape == [images]
    results = []
    for tape in (bytes_tape, floats_tape):
        gradients = Gradients(lambda parameter, gradient: results.append(gradient))
        stem.backward(found.clone(), tape, gradients)
    half = len(results) // 2
    assert half
    for first, second in zip(results[:half], results[half:], strict=True):
        assert torch.equal(first, second)


@METHODS
@NORMS
@pytest.mark.parametrize("family", ["proxyless", "mobilenetv3"])
def test_a_tail(check_layer, randomized, random_map, family, norm, method):
    unit = partial(ConvUnit, 8, 16, 1, method=method, weight_bits=8)
    if family == "proxyless":
        units = [unit(activation="relu6", norm=norm)]
    else:
        after = ConvUnit(16, 8, 1, method=method, weight_bits=8, activation="h_swish")
        units = [unit(activation="h_swish", norm=norm), after]
    module = randomized(torch.nn.ModuleList(units), method, "feature_mix")
    tail = Tail(*units, *[None] * (2 - len(units)))
    x = random_map(2, 8, 3, 5).requires_grad_()
    check_layer(tail.forward, partial(tail.backward, needs_input=True), module, x)
