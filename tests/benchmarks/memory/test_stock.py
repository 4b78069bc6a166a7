"""The stock network against ours; tests/tinytl/test_step.py compares their gradients."""

from dataclasses import replace

import pytest
import torch

from benchmarks.memory.stock import StockNetwork, stock_gradients
from search.space.architecture import SupernetSpec
from tinytl.description.config import GROUP_NORM, NormConfig, with_lite_residuals
from tinytl.description.method import Method
from tinytl.engine.network import build_network

FAMILIES = ["ofa_proxyless_d234_e346_k357_w0.35", "ofa_mbv3_d234_e346_k357_w1.0"]
NORMS = [NormConfig(), GROUP_NORM]


def _stock_network(family, norm, method):
    """The family's smallest subnet in double precision, every tensor random."""
    spec = SupernetSpec.parse(family)
    config = replace(spec.network_config(spec.smallest, 5), norm=norm)
    config = with_lite_residuals(config) if method.uses_lite_residual else config
    stock = StockNetwork(config, method).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in stock.state_dict().items():
            if tensor.dim() > 1:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
            elif name.endswith(("weight", "running_var")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.1, generator=generator)
    return config, stock.double()


def _images():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 64, 64, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: norm.kind)
@pytest.mark.parametrize("method", list(Method), ids=str)
def test_outputs_and_what_is_trained_equal_our_networks(family, norm, method):
    """To single precision: ours folds and standardizes weights before it is made double."""
    config, stock = _stock_network(family, norm, method)
    network = build_network(config, method, stock.state_dict(), weight_bits=32).double()
    images = _images()
    torch.testing.assert_close(network(images), stock(images).detach(), rtol=1e-4, atol=1e-5)
    found = stock_gradients(stock, images, torch.tensor([1, 3]))
    assert {name: gradient.shape for name, gradient in found.items()} == {
        name: parameter.shape for name, parameter in network.trained_parameters().items()
    }


def test_standardized_lite_residuals_do_not_see_the_weights_scale():
    config, plain = _stock_network(FAMILIES[0], NORMS[1], Method.LITE_RESIDUAL)
    standardized = StockNetwork(config, Method.LITE_RESIDUAL, standardize_lite_residuals=True)
    standardized.double().load_state_dict(plain.state_dict())
    expected = standardized(_images())
    with torch.no_grad():
        for name, parameter in standardized.named_parameters():
            if name.endswith(("conv1.weight", "conv2.weight")):
                parameter.mul_(3).add_(1)
    torch.testing.assert_close(standardized(_images()), expected, rtol=1e-3, atol=1e-4)
    assert (plain(_images()) - expected).abs().max() > 0.01
