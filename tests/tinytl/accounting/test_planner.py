import json
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import pairwise

import pytest

from search.space.architecture import SupernetSpec
from tinytl.accounting.memory import peak_memory
from tinytl.accounting.planner import (
    REASONABLE_SLOWDOWN,
    fastest_plan,
    leanest_plan,
    plans,
    step_time,
)
from tinytl.description.config import with_lite_residuals
from tinytl.description.method import Method
from tinytl.description.plan import Plan, Stretch
from tinytl.errors import InfeasibleError

METHOD = Method.LITE_RESIDUAL_BIAS
SPEC = SupernetSpec.parse("ofa_proxyless_d234_e346_k357_w0.35")
NETWORK = with_lite_residuals(SPEC.network_config(SPEC.smallest, 10))


def plan_of(*stretches, bits=32):
    """Stretches as (from stage, micro-batch size, recomputes)."""
    return Plan(
        batch_size=8,
        stretches=tuple(
            Stretch(from_stage=stage, micro_batch_size=size, recomputes=recomputes)
            for stage, size, recomputes in stretches
        ),
        optimizer_bits=bits,
    )


def test_the_estimate_orders_plans_as_they_were_measured():
    """ProxylessNAS-Mobile at 224 pixels, one thread: from the fastest to the slowest."""
    measured = [
        plan_of((0, 8, False)),
        plan_of((0, 8, False), bits=8),
        plan_of((0, 1, False), (3, 8, False), bits=8),
        plan_of((0, 1, True), (3, 8, False), bits=8),
        plan_of((0, 1, True), (3, 2, True), (4, 8, False), bits=8),
        plan_of((0, 1, False), bits=8),
        plan_of((0, 1, True), (3, 1, True), (4, 1, False), bits=8),
    ]
    times = [step_time(plan) for plan in measured]
    assert times == sorted(times)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 64, 1024])
def test_the_menu_goes_from_fast_to_slow_and_rounds_weights_last(batch_size):
    menu = plans(batch_size)
    assert menu[0] == Plan.whole(batch_size)
    assert len(set(menu)) == len(menu) < 180
    assert {plan.batch_size for plan in menu} == {batch_size}
    for faster, slower in pairwise(menu):
        assert faster.trained_bits >= slower.trained_bits
        if faster.trained_bits == slower.trained_bits:
            assert step_time(faster) <= step_time(slower)
    assert all(plan.optimizer_bits == 8 for plan in menu if plan.trained_bits == 16)


def test_the_fastest_plan_that_fits():
    prices = [peak_memory(NETWORK, METHOD, plan, 64).total_bytes for plan in plans(8)]
    limit = (min(prices) + max(prices)) // 2
    plan, peak = fastest_plan(NETWORK, METHOD, 64, limit, batch_size=8)
    first = next(i for i, price in enumerate(prices) if price <= limit)
    assert first > 0
    assert (plan, peak.total_bytes) == (plans(8)[first], prices[first])
    with pytest.raises(InfeasibleError) as raised:
        fastest_plan(NETWORK, METHOD, 64, min(prices) - 1, batch_size=8)
    assert raised.value.smallest_feasible_bytes == min(prices)


def test_the_leanest_plan_is_not_too_slow():
    plan, peak = leanest_plan(NETWORK, METHOD, 64, batch_size=8)
    slowest = REASONABLE_SLOWDOWN * step_time(plans(8)[0])
    assert step_time(plan) <= slowest
    for other in plans(8):
        if step_time(other) <= slowest:
            assert peak_memory(NETWORK, METHOD, other, 64).total_bytes >= peak.total_bytes


def test_plans_go_through_json_and_are_told_in_a_line():
    for plan in plans(8):
        assert Plan.from_dict(json.loads(json.dumps(asdict(plan)))) == plan
    assert len({plan.describe() for plan in plans(8)}) == len(plans(8))
    lean = plan_of((0, 1, True), (3, 2, True), (4, 8, False), bits=8)
    assert lean.describe() == (
        "batch 8, by 1 in stages 0-2 (recomputed), by 2 in stage 3 (recomputed), "
        "at once from stage 4, 8-bit moments"
    )


def test_a_network_of_few_stages_gets_plans_that_it_can_have():
    flat = replace(NETWORK, blocks=NETWORK.blocks[:2])
    assert flat.part_stages[-1] < 4
    with pytest.raises(InfeasibleError):  # not ConfigError, as for a stage that there is not
        fastest_plan(flat, METHOD, 64, 1, batch_size=8)


def test_no_torch():
    program = "import sys, tinytl.accounting.planner; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
