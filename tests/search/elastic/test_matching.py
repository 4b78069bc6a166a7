import random
from dataclasses import replace

import pytest
import torch

from search.elastic.matching import Moments, match, targets_of
from search.elastic.supernet import Supernet, build_lite_residuals
from search.space.architecture import SupernetSpec
from search.space.candidates import sample_subnet
from search.space.lite_residual_sizes import LARGEST
from tinytl.description.method import Method
from tinytl.engine.network import build_network

LITE = "efficientnet_lite0"
PROXYLESS = "ofa_proxyless_d23_e34_k35_w0.2"


@pytest.fixture(params=[LITE, PROXYLESS])
def supernet(request, elastic_network):
    spec = SupernetSpec.parse(request.param)
    return Supernet(spec, elastic_network(request.param).requires_grad_(False), 7)


def images(count=8, side=33, seed=0):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def built(supernet, subnet, norms):
    config, weights = supernet.extract(subnet)
    assert norms.keys() <= weights.keys()
    return build_network(config, Method.HEAD, {**weights, **norms}, weight_bits=32)


def test_moments_are_the_channels_also_far_from_0():
    scales = torch.tensor([1e-3, 1.0, 30.0]).view(1, 3, 1, 1)
    x = scales * torch.randn(16, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    x += torch.tensor([0.0, 30.0, -5.0]).view(1, 3, 1, 1)
    found = Moments.of(x)
    variance, mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    assert torch.allclose(found.mean.double(), mean, rtol=1e-5, atol=1e-6)
    assert torch.allclose(found.variance.double(), variance, rtol=1e-3)


def moments_behind(network, count, batch):
    """Of the maps behind the stem and so many blocks of the engine's network."""
    x = batch
    for part in network.parts[: count + 1]:
        x = part.forward(x)
    return Moments.of(x)


def test_the_full_network_stays_as_it_is(supernet):
    batch = images()
    norms = match(supernet, supernet.spec.largest, [batch], targets_of(supernet, [batch]))
    expected = supernet.forward(supernet.spec.largest, batch)
    found = built(supernet, supernet.spec.largest, norms)(batch)
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-2)


def test_what_stages_give_out_is_as_in_the_full_network(supernet):
    spec, batch = supernet.spec, images()
    full = built(supernet, spec.largest, {})
    targets = targets_of(supernet, [batch])
    smallest = spec.smallest
    for subnet in (smallest, replace(spec.largest, depths=smallest.depths)):
        subnet = spec.canonical(subnet)
        network = built(supernet, subnet, match(supernet, subnet, [batch], targets))
        count = full_count = 1
        for stage, depth in zip(spec.stages, subnet.depths, strict=True):
            count, full_count = count + depth, full_count + stage.depths[-1]
            found = moments_behind(network, count, batch)
            expected = moments_behind(full, full_count, batch)
            torch.testing.assert_close(found.mean, expected.mean, atol=0.02, rtol=0.02)
            if depth == 1 < stage.depths[-1]:  # no shortcut adds to what the norm gives out
                torch.testing.assert_close(found.variance, expected.variance, atol=0.03, rtol=0.03)


def test_lite_residuals_are_made_up_for(supernet):
    spec, batch = supernet.spec, images()
    generator = torch.Generator().manual_seed(0)
    modules = build_lite_residuals(spec, LARGEST, generator)
    for module in modules.values():
        module.final_bn.weight.fill_(0.5)  # fresh ones add nothing
    targets = targets_of(supernet, [batch], modules, LARGEST)
    subnet = spec.smallest
    seen = {}

    def note(index, y):
        seen[index] = y.mean((0, 2, 3))
        return y

    weights = match(supernet, subnet, [batch], targets, modules, LARGEST)
    state = supernet.network.state_dict()
    for position, index in supernet.positions(subnet).items():
        for key, value in weights.items():
            prefix = f"blocks.{position}.conv."
            if key.startswith(prefix):
                layer, field = key.removeprefix(prefix).rsplit(".", 1)
                state[f"blocks.{index}.conv.{layer}.bn.{field}"][: len(value)] = value
    supernet.forward(subnet, batch, modules, LARGEST, passing=note)
    for number, start in enumerate(spec.stage_starts):
        last = start + subnet.depths[number]
        torch.testing.assert_close(
            seen[last], targets[0].stages[number].mean, atol=0.02, rtol=0.02
        )


def test_batches_are_averaged(supernet):
    subnet = sample_subnet(supernet.spec, random.Random(0))
    ones, others = images(seed=1), images(seed=2)

    def matched(*batches):
        return match(supernet, subnet, batches, targets_of(supernet, batches))

    first, second = matched(ones), matched(others)
    for key, value in matched(ones, others).items():
        if not key.endswith(".weight"):  # of the averages
            mean = (first[key] + second[key]) / 2
            torch.testing.assert_close(value, mean, msg=key)
