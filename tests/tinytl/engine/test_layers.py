"""Layers with a tape against numerical gradients, by their input and all that they train."""

from functools import partial

import pytest
import torch

from tinytl.description.config import NormConfig
from tinytl.description.method import Method
from tinytl.engine.layers import ConvUnit, SqueezeExcite, standardize, standardize_backward

_BATCH = NormConfig()
_GROUP = NormConfig(kind="group", weight_standardization_eps=1e-2)
_GEOMETRIES = {"pointwise": (1, 1, 1), "depthwise": (3, 2, 8)}  # kernel size, stride, groups


@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_weight_standardization(check_gradients, eps):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 4, 3, 3, generator=generator, dtype=torch.float64)
    used = standardize(weight, eps)
    torch.testing.assert_close(used.mean((1, 2, 3)), torch.zeros(8, dtype=torch.float64))
    deviation = weight.flatten(1).std(1)
    torch.testing.assert_close(used.flatten(1).std(1), deviation / (deviation + eps))
    check_gradients(
        lambda weight: standardize(weight, eps),
        lambda grad, weight: (standardize_backward(grad, weight, eps),),
        weight,
    )


def test_filters_of_equal_values_have_a_gradient():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 4, 3, 3, generator=generator)
    weight[0], weight[1] = 0, 0.5
    grad = torch.randn(weight.shape, generator=generator)
    expected = grad[:2] - grad[:2].mean((1, 2, 3), keepdim=True)
    found = standardize_backward(grad, weight, 0.1)
    torch.testing.assert_close(found[:2], expected / 0.1)
    assert found.isfinite().all()


def _unit(method, norm, *, geometry="pointwise", activation=None, weight_bits=8, **options):
    kernel_size, stride, groups = _GEOMETRIES[geometry]
    return ConvUnit(
        8,
        8,
        kernel_size,
        method=method,
        weight_bits=weight_bits,
        stride=stride,
        groups=groups,
        activation=activation,
        norm=norm,
        **options,
    )


_UNITS = [
    pytest.param(Method.BIAS, None, 8, id="frozen, no norm"),
    pytest.param(Method.BIAS, _BATCH, 8, id="frozen, folded"),
    pytest.param(Method.BIAS, _BATCH, 32, id="frozen in 32 bits, folded"),
    pytest.param(Method.NORM_HEAD, _BATCH, 8, id="frozen, fixed statistics"),
    pytest.param(Method.NORM_HEAD, _GROUP, 8, id="frozen, group norm"),
    pytest.param(Method.FULL, None, 32, id="trained, no norm"),
    pytest.param(Method.FULL, _BATCH, 32, id="trained, fixed statistics"),
    pytest.param(Method.FULL, _GROUP, 32, id="trained and standardized, group norm"),
]
_NOTHING_LEARNS = pytest.param(Method.HEAD, _GROUP, 8, id="frozen, frozen group norm")


@pytest.mark.parametrize("geometry", _GEOMETRIES)
@pytest.mark.parametrize("activation", [None, "relu", "relu6", "h_swish"])
@pytest.mark.parametrize(("method", "norm", "weight_bits"), [*_UNITS, _NOTHING_LEARNS])
def test_a_unit(
    check_layer, randomized, random_map, method, norm, weight_bits, activation, geometry
):
    unit = _unit(
        method,
        norm,
        geometry=geometry,
        activation=activation,
        weight_bits=weight_bits,
        has_bias=norm is None,
    )
    randomized(unit, method)
    x = random_map(2, 8, 5, 4, scale=4).requires_grad_()
    check_layer(unit.forward, unit.backward, unit, x)


@pytest.mark.parametrize("geometry", _GEOMETRIES)
@pytest.mark.parametrize(("method", "norm", "weight_bits"), _UNITS)
def test_a_unit_whose_input_needs_no_gradient(
    check_layer, randomized, random_map, method, norm, weight_bits, geometry
):
    unit = _unit(
        method,
        norm,
        geometry=geometry,
        activation="relu6",
        weight_bits=weight_bits,
        has_bias=norm is None,
    )
    randomized(unit, method)
    backward = partial(unit.backward, needs_input=False)
    check_layer(unit.forward, backward, unit, random_map(2, 8, 5, 4, scale=4))


@pytest.mark.parametrize("method", [Method.NORM_HEAD, Method.BIAS, Method.FULL], ids=str)
@pytest.mark.parametrize("weight_bits", [8, 32])
def test_squeeze_and_excite(check_layer, randomized, random_map, method, weight_bits):
    layer = SqueezeExcite(16, 8, method=method, weight_bits=weight_bits)
    randomized(layer, method, "blocks.0.squeeze_excite")

    def forward(x, tape):  # without a tape it may overwrite x
        return layer.forward(x.clone() if tape is None else x, tape)

    x = random_map(2, 16, 5, 3, scale=3).requires_grad_()
    check_layer(forward, layer.backward, layer, x)


@torch.no_grad()
@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_a_frozen_unit_keeps_a_bit_per_value(random_map, activation):
    unit = _unit(Method.BIAS, _BATCH, activation=activation).double()
    tape = []
    y = unit.forward(random_map(2, 8, 5, 5), tape)
    kept = [item for item in tape if isinstance(item, torch.Tensor)]
    assert unit.keeps_bits_only
    assert [item.untyped_storage().nbytes() for item in kept] == [y.numel() // 8]
