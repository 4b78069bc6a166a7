"""The cases are figures of the published profiler; see `source` in published_memory.json."""

import json
from pathlib import Path

import pytest

from search.space.spec import parse_spec
from tinytl.accounting.published import count_parameters, published_memory

_CASES = json.loads((Path(__file__).parent / "published_memory.json").read_text())["cases"]


@pytest.mark.parametrize("case", _CASES, ids=lambda c: f"{c['network']}-{c['method']}")
def test_equals_the_published_profiler_to_the_byte(case):
    spec = parse_spec(case)
    memory = published_memory(
        spec.network,
        spec.method,
        resolution=spec.resolution,
        batch_size=spec.plan.batch_size,
        frozen_param_bits=spec.frozen_param_bits,
    )
    assert memory.param_bytes == case["param_bytes"]
    assert memory.peak_activation_bytes_per_image == case["peak_activation_bytes_per_image"]
    assert memory.total_bytes == case["total_bytes"]


def test_sums_are_rounded_to_single_precision():
    """Above 2^24 the published sums are multiples of 2: this case has an odd exact sum."""
    case = next(c for c in _CASES if c["network"].endswith("mbv3_d234_e346_k357_w1.0"))
    large = {**case, "method": "norm+head", "resolution": 320}
    spec = parse_spec({k: v for k, v in large.items() if not k.endswith("bytes")})
    memory = published_memory(
        spec.network, spec.method, resolution=320, batch_size=1, frozen_param_bits=8
    )
    assert memory.peak_activation_bytes_per_image > 2**24
    assert memory.peak_activation_bytes_per_image % 2 == 0


def test_counts_of_parameters_are_those_of_the_network():
    from tinytl.engine.network import Network

    spec = parse_spec({k: v for k, v in _CASES[9].items() if not k.endswith("bytes")})
    trained, _ = count_parameters(spec.network, spec.method)
    network = Network(spec.network, spec.method)
    assert trained == sum(p.numel() for p in network.trained_parameters().values())
