import random
from dataclasses import replace

import pytest

from search.space.architecture import SupernetSpec
from search.space.candidates import SearchSpace
from search.space.pricing import (
    fastest_fit,
    network_of,
    price,
    smallest_feasible,
    torch_price,
    with_plans,
)
from tinytl.accounting.memory import peak_memory
from tinytl.accounting.planner import plans
from tinytl.description.config import LiteResidualSize, with_lite_residuals, without_lite_residuals
from tinytl.description.method import Method, PeakMeaning
from tinytl.native.pricing.process import process_memory

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
    where = network, method, candidate.plan, candidate.resolution
    of_torch = peak_memory(*where, image_size=96)
    assert torch_price(space, candidate, method, 7) == of_torch
    is_native = method not in (Method.FULL, Method.NORM_HEAD)
    expected = process_memory(*where, image_size=96) if is_native else of_torch
    assert price(space, candidate, method, 7) == expected
    earlier = replace(space, peak_meaning=PeakMeaning.TORCH)
    assert price(earlier, candidate, method, 7) == of_torch


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


def test_without_lite_residuals_a_candidate_is_priced_by_the_rest_of_its_method():
    space = make_space(lite_residual_sizes=(None, LiteResidualSize()))
    biases = make_space()
    without = space.candidate(space.supernet.largest, 64, None)
    alone = biases.candidate(space.supernet.largest, 64)
    assert not network_of(space.supernet, without, Method.LITE_RESIDUAL_BIAS, 7).has_lite_residual
    for plan in plans(8)[::7]:
        found, expected = (
            price(of, replace(one, plan=plan), method, 7)
            for of, one, method in (
                (space, without, Method.LITE_RESIDUAL_BIAS),
                (biases, alone, Method.BIAS),
            )
        )
        assert found == expected
    least = smallest_feasible(space, Method.LITE_RESIDUAL_BIAS, 7)
    assert least[0].lite_residual is None
    assert least[1] == smallest_feasible(biases, Method.BIAS, 7)[1]


def test_plans_are_the_menu():
    candidate = make_space().largest()
    planned = list(with_plans(candidate))
    assert tuple(other.plan for other in planned) == plans(8)
    assert {replace(other, plan=candidate.plan) for other in planned} == {candidate}


def test_fastest_fit():
    space = make_space()
    of = price_bytes(space, Method.LITE_RESIDUAL_BIAS)
    candidate = space.largest()
    prices = [of(planned) for planned in with_plans(candidate)]
    assert fastest_fit(candidate, of, prices[0])[0].plan == plans(8)[0]
    for limit in (prices[0] - 1, sum(prices) // len(prices), min(prices)):
        index = next(i for i, peak_bytes in enumerate(prices) if peak_bytes <= limit)
        planned, peak_bytes = fastest_fit(candidate, of, limit)
        assert (planned.plan, peak_bytes) == (plans(8)[index], prices[index])
        assert peak_bytes == of(planned)
    assert fastest_fit(candidate, of, min(prices) - 1) is None


@pytest.mark.parametrize("supernet_id", [PROXYLESS, MBV3])
@pytest.mark.parametrize("method", [Method.LITE_RESIDUAL_BIAS, Method.FULL])
def test_moments_in_fewer_bits_never_take_more(supernet_id, method):
    """So the smallest feasible candidate is looked for among plans with 8-bit moments."""
    space = make_space(supernet_id)
    of = price_bytes(space, method)
    for candidate in (space.smallest(), space.largest()):
        prices = {planned.plan: of(planned) for planned in with_plans(candidate)}
        for plan, peak_bytes in prices.items():
            lean = replace(plan, optimizer_bits=8)
            assert prices[lean] <= peak_bytes


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
    for number in range(20):
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
