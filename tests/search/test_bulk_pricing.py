import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from search.architecture import SupernetSpec
from search.bulk_pricing import BulkPricing, lean_plans
from search.pricing import network_of, price, smallest_feasible
from search.space import SearchSpace
from tinytl.compute import multiply_accumulates
from tinytl.config import LiteResidualSize
from tinytl.planner import plans
from tinytl.trainable import Method

PROXYLESS = "ofa_proxyless_d234_e346_k357_w0.35"
MBV3 = "ofa_mbv3_d234_e346_k357_w1.0"
SHALLOW = "ofa_mbv3_d124_e34_k35_w0.5_gn"
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
        assert replace(planned.plan, trained_bits=32) in pricing.lean_plans
        if planned.plan.trained_bits == 16:
            assert pricing.lean(candidate, NO_LIMIT)[1] > limit


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
        "import sys, search.bulk_pricing; "
        "assert not {'torch', 'ofa', 'optuna'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
