"""Parity with the plain prediction, to the byte."""

import random
from dataclasses import replace

import numpy as np
import pytest

from search.architecture import Subnet, SupernetSpec
from tinytl.bulk_memory import BulkNetworks
from tinytl.config import GROUP_NORM, LiteResidualSize, with_lite_residuals
from tinytl.memory import peak_memory
from tinytl.planner import plans
from tinytl.trainable import Method

PROXYLESS = "ofa_proxyless_d234_e346_k357_w0.35"
MOBILENETV3 = "ofa_mbv3_d234_e346_k357_w1.0"
SHALLOW = "ofa_mbv3_d1234_e34_k35_w0.5"


class Family:
    """A supernet's subnets, and the same ones as choices among options of places."""

    def __init__(self, supernet_id, method, *, group_norm=False, size=None, num_classes=5):
        self.spec = SupernetSpec.parse(supernet_id)
        self.num_classes = num_classes
        self.group_norm = group_norm
        self.size = size or LiteResidualSize()
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

    def network(self, subnet, dropout_rate=0.0):
        network = self.spec.network_config(subnet, self.num_classes, dropout_rate=dropout_rate)
        if self.group_norm:
            network = replace(network, norm=GROUP_NORM)
        if self.method.uses_lite_residual:
            network = with_lite_residuals(network, self.size)
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


def check(family, subnets, plan, resolution, **more):
    bulk = BulkNetworks(family.typical, family.options, family.method, resolution, **more)
    found = bulk.peak_bytes(family.choices(subnets), plan)
    expected = [
        peak_memory(family.network(subnet), family.method, plan, resolution, **more).total_bytes
        for subnet in subnets
    ]
    assert found.tolist() == expected


@pytest.mark.parametrize("group_norm", [False, True], ids=["batch_norm", "group_norm"])
@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("supernet", [PROXYLESS, MOBILENETV3])
def test_every_plan_of_a_menu(supernet, method, group_norm):
    rng = random.Random(f"{supernet}{method}{group_norm}")
    family = Family(supernet, method, group_norm=group_norm)
    batch_size = rng.choice([3, 6, 8, 11])
    resolution = rng.choice([48, 65, 96])
    bulk = BulkNetworks(family.typical, family.options, method, resolution, image_size=96)
    subnets = [family.sample(rng) for _ in range(4)]
    choices = family.choices(subnets)
    networks = [family.network(subnet) for subnet in subnets]
    for plan in plans(batch_size):
        expected = [
            peak_memory(network, method, plan, resolution, image_size=96).total_bytes
            for network in networks
        ]
        assert bulk.peak_bytes(choices, plan).tolist() == expected, plan
