"""Counting against what runs: every convolution and classifier of a network is watched."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import search
from search.space.architecture import SupernetSpec
from search.space.candidates import sample_subnet
from tinytl.accounting.compute import multiply_accumulates, part_multiply_accumulates
from tinytl.description.config import LiteResidualSize, with_lite_residuals
from tinytl.description.method import Method
from tinytl.description.ofa_format import from_ofa
from tinytl.engine.network import build_network

PROXYLESS = "ofa_proxyless_d234_e346_k357_w0.35"
MOBILENETV3 = "ofa_mbv3_d234_e346_k357_w1.0"


def counted(network, resolution):
    """What torch's counter sees, which takes a multiply-accumulate for two operations."""
    model = build_network(network, Method.LITE_RESIDUAL_BIAS)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, resolution, resolution))
    return counter.get_total_flops() // 2


def test_padding_costs_no_more(lite0):
    """The zeros that the engine lays before a kernel are not counted."""
    same = lite0()
    for resolution in (96, 97):
        assert multiply_accumulates(same, resolution) == multiply_accumulates(
            replace(same, padding="symmetric"), resolution
        )


@pytest.mark.parametrize("size", [None, LiteResidualSize(groups=4, max_kernel_size=3)])
@pytest.mark.parametrize("resolution", [16, 65, 96])
@pytest.mark.parametrize("supernet", [PROXYLESS, MOBILENETV3])
def test_equals_what_runs(supernet, resolution, size):
    spec = SupernetSpec.parse(supernet)
    rng = random.Random(resolution)
    network = spec.network_config(sample_subnet(spec, rng), 7)
    if size is not None:
        network = with_lite_residuals(network, size)
    assert multiply_accumulates(network, resolution) == counted(network, resolution)


def test_published_network():
    """ProxylessNAS-Mobile at 224 pixels, for which about 320 M is commonly given."""
    path = Path(search.__file__).parent / "networks" / "proxyless_mobile.json"
    network = from_ofa(json.loads(path.read_text()))
    assert multiply_accumulates(network, 224) == pytest.approx(320e6, rel=0.01)


def test_parts():
    spec = SupernetSpec.parse(MOBILENETV3)
    network = spec.network_config(spec.smallest, 7)
    parts = part_multiply_accumulates(network, 96)
    assert len(parts) == len(network.part_stages) + 1
    assert parts[0] == 3 * 16 * 3**2 * 48**2
    assert parts[-1] == 1280 * 7
    shorter = replace(network, blocks=network.blocks[:-1])
    assert multiply_accumulates(shorter, 96) == sum(parts) - parts[-3]


def test_torch_free():
    code = (
        "import sys, tinytl.accounting.compute; assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
