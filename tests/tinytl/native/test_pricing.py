"""Predicted bytes of the trainer's process against programs that are really unrolled."""

import random
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from search.space.architecture import SupernetSpec
from search.space.bulk_pricing import BulkPricing
from search.space.candidates import SearchSpace
from search.space.lite_residual_sizes import NONE_OR_ANY, method_of
from search.space.pricing import network_of, price
from tinytl.accounting.planner import plans
from tinytl.description.method import Method
from tinytl.description.plan import Plan, Stretch
from tinytl.engine.network import build_network
from tinytl.errors import ConfigError
from tinytl.native import layout
from tinytl.native.arena import ALIGNMENT, Life, aligned, live_bytes, placed_bytes, plan_arena
from tinytl.native.delivery import predicted_process_bytes
from tinytl.native.formats.program_file import read_program
from tinytl.native.package import MOST_TRAINER_BYTES
from tinytl.native.pricing.process import process_memory
from tinytl.native.program import ProgramSettings, compile_program

PROXYLESS = "ofa_proxyless_d234_e346_k357_w0.35"
SUPERNETS = (
    PROXYLESS,
    "ofa_proxyless_d234_e346_k357_w0.75",
    "efficientnet_lite0",
    "ofa_mbv3_d234_e346_k357_w1.0",
    "ofa_mbv3_d124_e34_k35_w0.5_gn",
    "ofa_proxyless_d234_e346_k357_w0.35_gn",
)
METHODS = [method for method in Method if method.trains_on_device]
MIXED = Plan(  # a stretch that takes the whole batch before one that does not
    batch_size=4,
    stretches=(Stretch(micro_batch_size=4), Stretch(from_stage=2, micro_batch_size=1)),
)


def draw(rng, supernet_id):
    """A space, a method, a candidate with a plan of the menu."""
    batch_size = rng.choice((8, 8, 6, 1))
    space = SearchSpace(
        supernet=SupernetSpec.parse(supernet_id),
        resolutions=(48, 64, 96, 160),
        lite_residual_sizes=NONE_OR_ANY,
        batch_size=batch_size,
    )
    method = rng.choice(METHODS)
    candidate = replace(space.sample(rng), plan=rng.choice(plans(batch_size)))
    return space, method, candidate


def unroll(space, method, candidate, num_classes=10):
    config = network_of(space.supernet, candidate, method, num_classes)
    network = build_network(config, method_of(method, candidate.lite_residual))
    network.store_trained(candidate.plan.trained_bits)
    content = compile_program(
        network,
        candidate.plan,
        resolution=candidate.resolution,
        image_size=space.stored_size,
        classes=tuple(f"a class called {number}" for number in range(num_classes)),
        settings=ProgramSettings(),
    )
    return read_program(content)


@pytest.fixture
def lives(monkeypatch):
    """Buffers' lives of each program that is unrolled; their places are not planned."""
    found = []

    def note(its):
        found.append(its)
        return [0] * len(its), live_bytes(its)

    monkeypatch.setattr(layout, "plan_arena", note)
    return found


@pytest.mark.parametrize("supernet_id", SUPERNETS)
def test_worst_moments_are_those_of_programs(lives, supernet_id):
    rng = random.Random(supernet_id)
    for _ in range(8):
        space, method, candidate = draw(rng, supernet_id)
        program = unroll(space, method, candidate)
        found = price(space, candidate, method, 10).breakdown
        state = found["trained_values"] + found["optimizer_state"]
        assert state == aligned(program.numbers["state_bytes"])
        worst = live_bytes(lives[-1])
        assert placed_bytes(worst) <= found["step"] <= placed_bytes(worst + 4096)
        assert 0 <= found["program"] - program.mapped_bytes < 1 << 16


def test_price_is_at_least_what_a_process_takes_and_little_more():
    rng = random.Random(0)
    for supernet_id in SUPERNETS * 2:
        space, method, candidate = draw(rng, supernet_id)
        program = unroll(space, method, candidate)
        real = predicted_process_bytes(program, MOST_TRAINER_BYTES)
        found = price(space, candidate, method, 10)
        assert found.total_bytes == sum(found.breakdown.values())
        assert real <= found.total_bytes <= real + max(real // 50, 256_000), candidate


def test_plans_that_are_not_of_the_menu_cost_at_least_what_they_take(lives):
    space, _, candidate = draw(random.Random(1), PROXYLESS)
    space = replace(space, batch_size=4)
    candidate = replace(candidate, plan=MIXED)
    program = unroll(space, Method.LITE_RESIDUAL_BIAS, candidate)
    found = price(space, candidate, Method.LITE_RESIDUAL_BIAS, 10)
    assert found.total_bytes >= predicted_process_bytes(program, MOST_TRAINER_BYTES)


@pytest.mark.parametrize("supernet_id", SUPERNETS)
def test_many_at_once_cost_what_each_does(supernet_id):
    space, method, _ = draw(random.Random(supernet_id), supernet_id)
    pricing = BulkPricing(space, method, 10)
    choices = space.choices()
    counts = [len(values) for values in choices.values()]
    rows = np.random.default_rng(0).integers(counts, size=(12, len(counts)))
    candidates = [
        space.decode({name: choices[name][i] for name, i in zip(choices, row, strict=True)})
        for row in rows.tolist()
    ]
    for plan in random.Random(0).sample(plans(space.batch_size), 3):
        assert pricing.peak_bytes(rows, plan).tolist() == [
            price(space, replace(one, plan=plan), method, 10).total_bytes for one in candidates
        ]


@pytest.mark.parametrize("method", [Method.FULL, Method.NORM_HEAD])
def test_refused_methods_have_no_price(method):
    spec = SupernetSpec.parse(PROXYLESS)
    network = spec.network_config(spec.smallest, 10)
    with pytest.raises(ConfigError, match=re.escape(f"by {method.value!r}")):
        process_memory(network, method, Plan(), 64)


def test_arena_is_hardly_larger_than_its_worst_moment():
    rng = random.Random(0)
    for _ in range(5):
        lives = []
        for moment in range(60):  # maps of falling size, some kept for the way back
            size = rng.randrange(1, 200_000) // (1 + moment // 10)
            last = 120 - moment if rng.random() < 0.3 else moment + rng.randrange(1, 4)
            lives.append(Life(num_bytes=size, first=moment, last=last))
        offsets, total = plan_arena(lives)
        for one, at in zip(lives, offsets, strict=True):
            assert at % ALIGNMENT == 0
            assert at + one.num_bytes <= total
            for other, its in zip(lives, offsets, strict=True):
                apart = at + one.num_bytes <= its or its + other.num_bytes <= at
                assert one is other or apart or one.last < other.first or other.last < one.first
        assert live_bytes(lives) <= total <= placed_bytes(live_bytes(lives))


def test_pricing_needs_no_torch():
    code = (
        "import sys; import tinytl.native.pricing.process; "
        "assert not {'torch', 'numpy'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
