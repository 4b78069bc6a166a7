import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from search.space.architecture import SupernetSpec
from search.space.bounds import Bounds
from search.space.bulk_pricing import OUT_OF_BOUNDS, BulkPricing, lean_plans
from search.space.candidates import SearchSpace
from search.space.encoding import Encoding
from search.space.pricing import least_network, network_of, price, smallest_feasible
from tinytl.accounting.compute import multiply_accumulates
from tinytl.accounting.inference_memory import process_bytes
from tinytl.accounting.model_size import model_bytes
from tinytl.accounting.planner import plans
from tinytl.description.config import LiteResidualSize
from tinytl.description.method import Method

PROXYLESS = "ofa_proxyless_d234_e346_k357_w0.35"
MBV3 = "ofa_mbv3_d234_e346_k357_w1.0"
SHALLOW = "ofa_mbv3_d124_e34_k35_w0.5_gn"
SHALLOW_BATCH_NORM = "ofa_mbv3_d123_e34_k35_w0.5"
LITE = "efficientnet_lite0"
SIZES = (LiteResidualSize(), LiteResidualSize(groups=4, max_kernel_size=3))
NO_LIMIT = 1 << 60


def make_space(supernet_id=PROXYLESS, **changes):
    base = {
        "supernet": SupernetSpec.parse(supernet_id),
        "resolutions": (48, 80),
        "lite_residual_sizes": SIZES,
    }
    return SearchSpace(**{**base, **changes})


def random_rows(space, count, seed=0):
    """Not canonical: entries of absent blocks are random too."""
    counts = [len(values) for values in space.choices().values()]
    return np.random.default_rng(seed).integers(counts, size=(count, len(counts)))


def candidates_of(space, rows):
    choices = space.choices()
    return [
        space.decode({name: choices[name][i] for name, i in zip(choices, row, strict=True)})
        for row in rows.tolist()
    ]


def total_bytes(space, candidate, method):
    return price(space, candidate, method, 10).total_bytes


@pytest.mark.parametrize(
    ("supernet_id", "method", "batch_size"),
    [
        (PROXYLESS, Method.LITE_RESIDUAL_BIAS, 8),
        (MBV3, Method.LITE_RESIDUAL, 5),
        (MBV3, Method.FULL, 8),
        (SHALLOW, Method.NORM_HEAD, 8),
        (SHALLOW, Method.LITE_RESIDUAL_BIAS, 6),
        (SHALLOW_BATCH_NORM, Method.BIAS, 5),
        (SHALLOW_BATCH_NORM, Method.HEAD, 5),
        (LITE, Method.LITE_RESIDUAL_BIAS, 8),
        (LITE, Method.BIAS, 6),
        (LITE, Method.FULL, 3),
        (LITE, Method.HEAD, 8),
    ],
)
def test_peaks_and_macs_are_those_of_each_candidate(supernet_id, method, batch_size):
    space = make_space(supernet_id, batch_size=batch_size)
    pricing = BulkPricing(space, method, 10)
    rows = random_rows(space, 24)
    candidates = candidates_of(space, rows)
    for plan in random.Random(0).sample(plans(batch_size), 6):
        assert pricing.peak_bytes(rows, plan).tolist() == [
            total_bytes(space, replace(candidate, plan=plan), method) for candidate in candidates
        ]
    networks = [network_of(space.supernet, candidate, method, 10) for candidate in candidates]
    assert pricing.macs(rows).tolist() == [
        multiply_accumulates(network, candidate.resolution)
        for network, candidate in zip(networks, candidates, strict=True)
    ]


def test_images_are_stored_at_the_largest_resolution():
    space = make_space(resolutions=(48, 512), batch_size=1)
    rows = random_rows(space, 4)
    rows[:, -2] = 0
    peaks = BulkPricing(space, Method.HEAD, 10).peak_bytes(rows, space.slow_plan)
    assert peaks.tolist() == [
        total_bytes(space, candidate, Method.HEAD) for candidate in candidates_of(space, rows)
    ]


@pytest.mark.parametrize("method", [Method.LITE_RESIDUAL_BIAS, Method.FULL])
def test_lean_peak_is_of_rounded_weights_only_above_the_limit(method):
    space = make_space(MBV3)
    pricing = BulkPricing(space, method, 10)
    rows = random_rows(space, 16)
    wide, least = (pricing.lean_peak_bytes(rows, limit) for limit in (NO_LIMIT, 0))
    assert (least <= wide).all()
    assert (least < wide).any()
    limit = int(np.median(wide))
    found = pricing.lean_peak_bytes(rows, limit)
    assert np.array_equal(found, np.where(wide <= limit, wide, least))
    for candidate, peak_bytes in zip(candidates_of(space, rows), found.tolist(), strict=True):
        planned, planned_bytes = pricing.lean(candidate, limit)
        assert planned_bytes == peak_bytes == total_bytes(space, planned, method)
        assert replace(planned, plan=candidate.plan) == candidate
        assert replace(planned.plan, trained_bits=32) in pricing.lean_plans(
            candidate.lite_residual
        )
        if planned.plan.trained_bits == 16:
            assert pricing.lean(candidate, NO_LIMIT)[1] > limit


@pytest.mark.parametrize("supernet_id", [PROXYLESS, SHALLOW])
def test_peaks_with_and_without_lite_residuals(supernet_id):
    """As those of each candidate, with its own method; lean ones as where either is searched."""
    method = Method.LITE_RESIDUAL_BIAS
    space = make_space(supernet_id, lite_residual_sizes=(None, *SIZES))
    pricing, rows = BulkPricing(space, method, 10), random_rows(space, 40)
    candidates = candidates_of(space, rows)
    for plan in random.Random(1).sample(plans(8), 3):
        planned = [replace(candidate, plan=plan) for candidate in candidates]
        expected = [total_bytes(space, each, method) for each in planned]
        assert pricing.peak_bytes(rows, plan).tolist() == expected
    assert pricing.macs(rows).tolist() == [
        multiply_accumulates(network_of(space.supernet, each, method, 10), each.resolution)
        for each in candidates
    ]
    with_modules = rows[:, -1] > 0
    lean_bytes = pricing.lean_peak_bytes(rows, 0)
    alone = BulkPricing(make_space(supernet_id), Method.BIAS, 10)
    modules = BulkPricing(make_space(supernet_id), method, 10)
    assert np.array_equal(lean_bytes[~with_modules], alone.lean_peak_bytes(rows[~with_modules], 0))
    less = np.eye(1, rows.shape[1], rows.shape[1] - 1, dtype=rows.dtype)
    assert np.array_equal(
        lean_bytes[with_modules], modules.lean_peak_bytes(rows[with_modules] - less, 0)
    )
    for candidate, peak_bytes in zip(candidates[:8], lean_bytes.tolist(), strict=False):
        assert pricing.lean(candidate, 0)[1] == peak_bytes
    smallest, smallest_bytes = smallest_feasible(space, method, 10)
    assert pricing.lean(smallest, smallest_bytes)[1] <= smallest_bytes


@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("supernet_id", [PROXYLESS, MBV3])
def test_the_smallest_feasible_limit_has_a_lean_candidate(supernet_id, method):
    space = make_space(supernet_id, resolutions=(48, 64), lite_residual_sizes=SIZES[:1])
    candidate, smallest_bytes = smallest_feasible(space, method, 10)
    assert BulkPricing(space, method, 10).lean(candidate, smallest_bytes)[1] <= smallest_bytes


@pytest.mark.parametrize(
    ("supernet_id", "method"),
    [(PROXYLESS, Method.LITE_RESIDUAL_BIAS), (PROXYLESS, Method.HEAD), (MBV3, Method.FULL)],
)
def test_lean_plans_are_few_and_nearly_as_good_as_the_menu(supernet_id, method):
    space = make_space(supernet_id)
    found = lean_plans(space, method, 10)
    assert 1 <= len(found) <= 8
    assert {(plan.optimizer_bits, plan.trained_bits) for plan in found} == {(8, 32)}
    assert set(found) <= set(plans(8))
    assert lean_plans.__wrapped__(space, method, 10) == found
    pricing = BulkPricing(space, method, 10)
    rows = random_rows(space, 200, seed=1)
    menu = [plan for plan in plans(8) if plan.trained_bits == 32]
    least = np.min([pricing.peak_bytes(rows, plan) for plan in menu], axis=0)
    excess = pricing.lean_peak_bytes(rows, NO_LIMIT) / least - 1
    assert (excess >= 0).all()
    assert excess.mean() < 0.001


def test_no_rows():
    space = make_space()
    pricing = BulkPricing(space, Method.BIAS, 10)
    rows = random_rows(space, 0)
    assert pricing.lean_peak_bytes(rows, 0).shape == pricing.macs(rows).shape == (0,)


def test_torch_free():
    code = (
        "import sys, search.space.bulk_pricing; "
        "assert not {'torch', 'ofa', 'optuna'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("supernet_id", "method"),
    [
        (PROXYLESS, Method.LITE_RESIDUAL_BIAS),
        (MBV3, Method.FULL),
        (LITE, Method.BIAS),
        (SHALLOW, Method.LITE_RESIDUAL_BIAS),
    ],
)
def test_the_memory_of_inference_is_that_of_each_network(supernet_id, method):
    sizes = (None, *SIZES) if method.uses_lite_residual else SIZES[:1]
    space = make_space(supernet_id, lite_residual_sizes=sizes)
    pricing, rows = BulkPricing(space, method, 10), random_rows(space, 40)
    candidates = candidates_of(space, rows)
    expected = [
        process_bytes(network_of(space.supernet, each, method, 10), each.resolution)
        for each in candidates
    ]
    assert pricing.inference_bytes(rows).tolist() == expected
    bounds = Bounds(inference_bytes=sorted(expected)[20])
    bounded = BulkPricing(space, method, 10, bounds=bounds)
    free = pricing.lean_peak_bytes(rows, 10**8).tolist()
    fits = [num_bytes <= bounds.inference_bytes for num_bytes in expected]
    assert bounded.lean_peak_bytes(rows, 10**8).tolist() == [
        peak if within else OUT_OF_BOUNDS for peak, within in zip(free, fits, strict=True)
    ]
    assert [bounded.is_within_bounds(each) for each in candidates] == fits
    least = process_bytes(least_network(space, method, 10), space.resolutions[0])
    smallest, _ = smallest_feasible(space, method, 10, None, Bounds(inference_bytes=least))
    network = network_of(space.supernet, smallest, method, 10)
    assert process_bytes(network, smallest.resolution) == least


def test_bytes_of_values_are_those_of_each_network():
    space = SearchSpace(supernet=SupernetSpec.parse(PROXYLESS), resolutions=(32, 48))
    method = Method.LITE_RESIDUAL_BIAS
    pricing = BulkPricing(space, method, 5)
    rng = random.Random(0)
    candidates = [space.sample(rng) for _ in range(20)] + [space.smallest(), space.largest()]
    rows = Encoding(space).rows(candidates)
    expected = [
        model_bytes(network_of(space.supernet, candidate, method, 5), method)
        for candidate in candidates
    ]
    assert pricing.model_bytes(rows).tolist() == expected
    limit = sorted(expected)[8]
    bounded = BulkPricing(space, method, 5, bounds=Bounds(model_bytes=limit))
    peaks, free = (p.lean_peak_bytes(rows, 10**8).tolist() for p in (bounded, pricing))
    for candidate, num_bytes, peak, free_peak in zip(
        candidates, expected, peaks, free, strict=True
    ):
        fits = num_bytes <= limit
        assert peak == (free_peak if fits else OUT_OF_BOUNDS)
        assert bounded.is_within_bounds(candidate) is fits
        assert (bounded.price_bytes(candidate) == OUT_OF_BOUNDS) is not fits
    least = model_bytes(least_network(space, method, 5), method)
    smallest, _ = smallest_feasible(space, method, 5, None, Bounds(model_bytes=least))
    found = model_bytes(network_of(space.supernet, smallest, method, 5), method)
    assert found == least
