import random
from dataclasses import replace

import pytest

from search.architecture import SupernetSpec
from search.pricing import (
    fastest_fit,
    network_of,
    price,
    smallest_feasible,
    with_plans,
)
from search.space import SearchSpace
from tinytl.config import LiteResidualSize, with_lite_residuals, without_lite_residuals
from tinytl.memory import peak_memory
from tinytl.trainable import Method

PROXYLESS = "ofa_proxyless_d234_e346_k357_w0.35"
MBV3 = "ofa_mbv3_d234_e346_k357_w1.0"


def make_space(supernet_id=PROXYLESS, **changes):
    base = {"supernet": SupernetSpec.parse(supernet_id), "resolutions": (48, 64, 96)}
    return SearchSpace(**{**base, **changes})


def price_bytes(space, method, num_classes=10):
    return lambda candidate: price(space, candidate, method, num_classes).total_bytes


@pytest.mark.parametrize("method", list(Method))
def test_price_is_the_peak_of_the_network(method):
    space = make_space()
    candidate = space.sample(random.Random(0))
    plain = space.supernet.network_config(candidate.subnet, 7)
    network = network_of(space.supernet, candidate, method, 7)
    assert without_lite_residuals(network) == plain
    assert network.has_lite_residual == method.uses_lite_residual
    peak = price(space, candidate, method, 7)
    assert peak == peak_memory(network, method, candidate.plan, candidate.resolution)


def test_lite_residual_size_counts():
    space = make_space(lite_residual_sizes=(LiteResidualSize(), LiteResidualSize(expand=2.0)))
    candidate = space.largest()
    larger = replace(candidate, lite_residual=LiteResidualSize(expand=2.0))
    network = network_of(space.supernet, larger, Method.LITE_RESIDUAL, 7)
    expected = with_lite_residuals(
        space.supernet.network_config(larger.subnet, 7), LiteResidualSize(expand=2.0)
    )
    assert network == expected
    of = price_bytes(space, Method.LITE_RESIDUAL)
    assert of(larger) > of(candidate)


def test_plans_go_from_fast_to_slow():
    sizes = [c.plan.micro_batch_size for c in with_plans(make_space().largest())]
    assert sizes == [8, 4, 3, 2, 1]
    assert [c.plan.batch_size for c in with_plans(make_space(batch_size=1).largest())] == [1]


def test_fastest_fit():
    space = make_space()
    of = price_bytes(space, Method.LITE_RESIDUAL_BIAS)
    candidate = space.largest()
    prices = [of(planned) for planned in with_plans(candidate)]
    assert prices == sorted(prices, reverse=True)
    planned, peak_bytes = fastest_fit(candidate, of, prices[1])
    assert planned.plan.micro_batch_size == 4
    assert peak_bytes == of(planned) == prices[1]
    assert fastest_fit(candidate, of, prices[1] - 1)[0].plan.micro_batch_size == 3
    assert fastest_fit(candidate, of, prices[-1] - 1) is None


@pytest.mark.parametrize(
    ("supernet_id", "method"),
    [
        (PROXYLESS, Method.LITE_RESIDUAL_BIAS),
        (PROXYLESS, Method.HEAD),
        (PROXYLESS, Method.FULL),
        (MBV3, Method.LITE_RESIDUAL_BIAS),
    ],
)
def test_nothing_is_below_the_smallest_feasible(supernet_id, method):
    space = make_space(supernet_id)
    of = price_bytes(space, method)
    candidate, smallest_bytes = smallest_feasible(space, method, 10)
    space.check(candidate)
    assert of(candidate) == smallest_bytes
    rng = random.Random(0)
    parameters, choices = space.encode(candidate), space.choices()
    for number in range(100):
        if number % 2:
            other = space.sample(rng)
        else:
            names = rng.sample(list(choices), rng.randint(1, 4))
            changes = {name: rng.choice(choices[name]) for name in names}
            other = space.decode({**parameters, **changes})
        for planned in with_plans(other):
            assert of(planned) >= smallest_bytes


def test_each_choice_mostly_costs():
    """Larger kernels, ratios, depths and resolutions cost more, at the same plan."""
    space = make_space()
    of = price_bytes(space, Method.LITE_RESIDUAL_BIAS)
    rng = random.Random(1)
    for _ in range(30):
        candidate = next(with_plans(space.sample(rng)))
        parameters = space.encode(candidate)
        for name in rng.sample(list(space.choices()), 4):
            values = space.choices()[name]
            prices = [of(space.decode({**parameters, name: value})) for value in values]
            assert prices == sorted(prices), name
