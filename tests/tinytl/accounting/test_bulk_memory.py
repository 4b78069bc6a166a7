"""Parity with the prediction for one network, to the byte."""

import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from search.space.architecture import Subnet, SupernetSpec
from tinytl.accounting.bulk_memory import BulkNetworks
from tinytl.accounting.memory import peak_memory
from tinytl.accounting.planner import plans
from tinytl.description.config import GROUP_NORM, with_lite_residuals
from tinytl.description.method import Method
from tinytl.description.plan import Plan, Stretch
from tinytl.errors import ConfigError

PROXYLESS = "ofa_proxyless_d234_e346_k357_w0.35"
MOBILENETV3 = "ofa_mbv3_d234_e346_k357_w1.0"


class Family:
    """A supernet's subnets, and the same ones as choices among options of places."""

    def __init__(
        self, supernet_id, method, *, group_norm=False, dropout_rate=0.0, padding="symmetric"
    ):
        self.spec = SupernetSpec.parse(supernet_id)
        self.num_classes = 5
        self.group_norm = group_norm
        self.padding = padding
        self.dropout_rate = dropout_rate
        self.method = method
        spec = self.spec
        self.values = [(k, e) for k in spec.kernel_sizes for e in spec.expand_ratios]
        uniform = [self.network(spec.uniform(k, e, spec.depths[-1])) for k, e in self.values]
        self.typical = uniform[0]
        self.options = [[block] for block in uniform[0].blocks[:1]]
        for place in range(1, spec.num_dynamic_blocks + 1):
            self.options.append([network.blocks[place] for network in uniform])
            depth = (place - 1) % spec.max_depth
            if depth >= spec.depths[0] and place <= 5 * spec.max_depth:
                self.options[-1].append(None)

    def network(self, subnet):
        network = self.spec.network_config(
            subnet, self.num_classes, dropout_rate=self.dropout_rate
        )
        network = replace(network, padding=self.padding)
        if self.group_norm:
            network = replace(network, norm=GROUP_NORM)
        if self.method.uses_lite_residual:
            network = with_lite_residuals(network)
        return network

    def sample(self, rng, depths=None):
        spec = self.spec
        blocks = range(spec.num_dynamic_blocks)
        return Subnet(
            kernel_sizes=tuple(rng.choice(spec.kernel_sizes) for _ in blocks),
            expand_ratios=tuple(rng.choice(spec.expand_ratios) for _ in blocks),
            depths=depths or tuple(rng.choice(spec.depths) for _ in range(5)),
        )

    def choices(self, subnets):
        rows = []
        for subnet in subnets:
            present = {place for stage in self.spec.active_blocks(subnet) for place in stage}
            pairs = zip(subnet.kernel_sizes, subnet.expand_ratios, strict=True)
            row = [0] + [
                self.values.index(pair) if place in present else len(self.values)
                for place, pair in enumerate(pairs, start=1)
            ]
            rows.append(row)
        return np.array(rows)


def check(family, subnets, its_plans, resolution, **more):
    bulk = BulkNetworks(family.typical, family.options, family.method, resolution, **more)
    choices = family.choices(subnets)
    networks = [family.network(subnet) for subnet in subnets]
    for plan in its_plans:
        expected = [
            peak_memory(network, family.method, plan, resolution, **more).total_bytes
            for network in networks
        ]
        assert bulk.peak_bytes(choices, plan).tolist() == expected, plan


@pytest.mark.parametrize("group_norm", [False, True], ids=["batch_norm", "group_norm"])
@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("supernet", [PROXYLESS, MOBILENETV3])
def test_equals_the_prediction(supernet, method, group_norm):
    """Plans of the menu, and ragged ones that it does not have."""
    rng = random.Random(f"{supernet} {method} {group_norm}")
    family = Family(supernet, method, group_norm=group_norm)
    batch_size = rng.choice([3, 6, 11])
    its_plans = rng.sample(plans(batch_size), 8)
    its_plans += [random_plan(rng, batch_size) for _ in range(4)]
    subnets = [family.sample(rng) for _ in range(3)]
    check(family, subnets, its_plans, rng.choice([48, 65, 96]), image_size=rng.choice([96, None]))


def random_plan(rng, batch_size):
    starts = [0, *sorted(rng.sample(range(1, 5), rng.randint(0, 2)))]
    return Plan(
        batch_size=batch_size,
        stretches=tuple(
            Stretch(
                from_stage=start,
                micro_batch_size=rng.randint(1, batch_size),
                recomputes=start != starts[-1] and rng.random() < 0.5,
            )
            for start in starts
        ),
        optimizer_bits=rng.choice([8, 32]),
        trained_bits=rng.choice([16, 32]),
    )


@pytest.mark.parametrize("method", list(Method))
def test_equals_the_prediction_with_same_padding(method):
    rng = random.Random(f"same {method}")
    family = Family(PROXYLESS, method, padding="same")
    its_plans = rng.sample(plans(8), 8) + [random_plan(rng, 8) for _ in range(4)]
    check(family, [family.sample(rng) for _ in range(3)], its_plans, rng.choice([64, 65, 96]))


@pytest.mark.parametrize("method", [Method.LITE_RESIDUAL, Method.FULL])
def test_every_plan_of_the_menu(method):
    rng = random.Random(1)
    family = Family(MOBILENETV3, method)
    check(family, [family.sample(rng) for _ in range(2)], plans(8), 96, frozen_bits=32)


def test_dropout_and_a_large_image():
    family = Family(PROXYLESS, Method.HEAD, dropout_rate=0.2)
    subnets = [family.spec.smallest, family.spec.largest]
    check(family, subnets, [Plan.whole(8, 1), Plan.whole(8)], 48, image_size=512)


def test_more_networks_than_are_gone_through_at_a_time():
    rng = random.Random(2)
    family = Family(PROXYLESS, Method.BIAS)
    bulk = BulkNetworks(family.typical, family.options, family.method, 48)
    choices = family.choices([family.sample(rng) for _ in range(101)])
    few = bulk.peak_bytes(choices, Plan())
    assert len(set(few.tolist())) > 50
    assert np.array_equal(bulk.peak_bytes(np.tile(choices, (90, 1)), Plan()), np.tile(few, 90))
    assert bulk.peak_bytes(choices[:0], Plan()).shape == (0,)


def test_a_place_without_blocks_is_skipped():
    """Stages of one block: a stretch may begin with the next stage's first."""
    rng = random.Random(3)
    family = Family("ofa_mbv3_d13_e34_k35_w0.5", Method.LITE_RESIDUAL_BIAS)
    depths = (1, 1, 3, 1, 3)
    for place in range(1, 16):
        stage, position = divmod(place - 1, 3)
        if position:
            blocks = [block for block in family.options[place] if block is not None]
            family.options[place] = [None] if depths[stage] == 1 else blocks
    subnets = [family.sample(rng, depths) for _ in range(4)]
    check(family, subnets, rng.sample(plans(8), 20), 96)


def test_a_stretch_beyond_the_networks_is_refused():
    family = Family(PROXYLESS, Method.BIAS)
    bulk = BulkNetworks(family.typical, family.options, family.method, 48)
    far = (Stretch(micro_batch_size=8), Stretch(from_stage=9, micro_batch_size=8))
    with pytest.raises(ConfigError, match="starts at stage 9"):
        bulk.peak_bytes(family.choices([family.spec.smallest]), Plan(stretches=far))


def test_torch_free():
    code = (
        "import sys, tinytl.accounting.bulk_memory; "
        "assert 'torch' not in sys.modules, 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
