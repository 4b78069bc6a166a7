import random
import subprocess
import sys
from dataclasses import replace

import pytest

from search.elastic.ofa_package import build_elastic_network
from search.errors import SpaceError
from search.space.architecture import Subnet, SupernetSpec
from search.space.candidates import sample_subnet
from search.space.families import base_of
from tinytl.description.config import GROUP_NORM
from tinytl.description.ofa_format import from_ofa

IDS = [
    "ofa_proxyless_d234_e346_k357_w0.35_tinyimagenet",
    "ofa_proxyless_d234_e346_k357_w1.3",
    "ofa_mbv3_d234_e346_k357_w1.0",
    "ofa_mbv3_d234_e346_k357_w1.2",
]


@pytest.mark.parametrize("supernet_id", IDS)
def test_network_config_equals_ofa(supernet_id):
    spec = SupernetSpec.parse(supernet_id)
    net = build_elastic_network(spec, 10)
    rng = random.Random(0)
    subnets = [spec.largest, spec.smallest, *(sample_subnet(spec, rng) for _ in range(20))]
    for subnet in subnets:
        net.set_active_subnet(
            ks=list(subnet.kernel_sizes),
            e=list(subnet.expand_ratios),
            d=list(subnet.depths),
        )
        assert spec.network_config(subnet, 10) == from_ofa(net.get_active_net_config())


def test_parse_keeps_suffix():
    spec = SupernetSpec.parse(IDS[0])
    assert spec.id == IDS[0]
    assert (spec.family, spec.width) == ("proxyless", 0.35)
    assert spec.kernel_sizes == (3, 5, 7)
    assert spec.expand_ratios == (3, 4, 6)
    assert spec.depths == (2, 3, 4)
    assert spec.num_dynamic_blocks == 21
    assert SupernetSpec.parse(IDS[2]).num_dynamic_blocks == 20


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        ("", "batch"),
        ("_gn", "group"),
        ("_gn_mine", "group"),
        ("_gnome", "batch"),
        ("_a_gn", "batch"),
    ],
)
def test_gn_behind_the_width_means_group_norm(suffix, kind):
    spec = SupernetSpec.parse(f"ofa_mbv3_d234_e346_k357_w1.0{suffix}")
    assert spec.norm.kind == kind
    assert spec.network_config(spec.smallest, 5).norm == spec.norm
    assert (spec.norm == GROUP_NORM) == (kind == "group")


@pytest.mark.parametrize(
    "supernet_id",
    [
        "resnet50",
        "ofa_proxyless_d234_e346_k357",
        "ofa_proxyless_d234_e346_k357_w1.3/../x",
        "ofa_proxyless_d432_e346_k357_w1.3",
        "ofa_proxyless_d234_e346_k346_w1.3",
        "ofa_proxyless_d234_e146_k357_w1.3",
        "ofa_proxyless_d023_e346_k357_w1.3",
        "ofa_proxyless_d234_e346_k357_w99",
    ],
)
def test_parse_refuses(supernet_id):
    with pytest.raises(SpaceError) as raised:
        SupernetSpec.parse(supernet_id)
    assert repr(supernet_id) in str(raised.value)


def test_check_quotes_the_value():
    spec = SupernetSpec.parse(IDS[2])
    good = spec.largest
    with pytest.raises(SpaceError, match=r"depths\[0\] must be one of \[2, 3, 4\] but got 5"):
        spec.check(
            Subnet(
                kernel_sizes=good.kernel_sizes,
                expand_ratios=good.expand_ratios,
                depths=(5, 2, 2, 2, 2),
            )
        )
    with pytest.raises(SpaceError, match="kernel_sizes must have 20 entries"):
        spec.check(SupernetSpec.parse(IDS[0]).largest)


def test_canonical_fixes_absent_blocks_only():
    spec = SupernetSpec.parse(IDS[0])
    subnet = Subnet(kernel_sizes=(7,) * 21, expand_ratios=(6,) * 21, depths=(2, 3, 4, 2, 4))
    canonical = spec.canonical(subnet)
    assert canonical.kernel_sizes == (7, 7, 3, 3, 7, 7, 7, 3) + (7,) * 4 + (7, 7, 3, 3) + (7,) * 5
    assert canonical.expand_ratios == (6, 6, 3, 3, 6, 6, 6, 3) + (6,) * 4 + (6, 6, 3, 3) + (6,) * 5
    assert spec.canonical(canonical) == canonical
    assert spec.network_config(subnet, 5) == spec.network_config(canonical, 5)


def test_torch_free():
    code = (
        "import sys, search.space.architecture, search.space.candidates, search.space.pricing; "
        "import search.supernets.registry; "
        "assert not {'torch', 'ofa', 'optuna', 'numpy'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_check_refuses_numbers_that_only_equal_a_choice():
    spec = SupernetSpec.parse(IDS[2])
    with pytest.raises(SpaceError, match=r"depths\[0\] must be one of \[2, 3, 4\] but got 2.0"):
        spec.check(replace(spec.smallest, depths=(2.0, 2, 2, 2, 2)))


def test_equal_supernets_give_the_same_blocks():
    """Costs are found by identity."""
    ours, theirs = (SupernetSpec.parse(IDS[1]) for _ in range(2))
    subnet = ours.largest
    pairs = zip(
        ours.network_config(subnet, 5).blocks, theirs.network_config(subnet, 7).blocks, strict=True
    )
    assert all(our is their for our, their in pairs)


LITE = {
    "efficientnet_lite0": ((2, 2, 3, 3, 4), (24, 40, 80, 112, 192, 320)),
    "efficientnet_lite1": ((3, 3, 4, 4, 5), (24, 40, 80, 112, 192, 320)),
    "efficientnet_lite2": ((3, 3, 4, 4, 5), (24, 48, 88, 120, 208, 352)),
}


@pytest.mark.parametrize("supernet_id", LITE)
def test_efficientnet_lite(supernet_id):
    """Of the published networks: depths and widths; ends as wide in all (arXiv 1905.11946)."""
    depths, widths = LITE[supernet_id]
    spec = SupernetSpec.parse(supernet_id)
    assert spec.largest.depths == depths
    assert spec.num_dynamic_blocks == sum(depths) + 1 == len(spec.largest.kernel_sizes)
    network = spec.network_config(spec.largest, 1000)
    assert (network.padding, network.first_conv.out_channels) == ("same", 32)
    assert network.feature_mix.out_channels == 1280
    assert [round(255 * m) for m in network.normalization.mean] == [127] * 3
    assert [round(255 * s) for s in network.normalization.std] == [128] * 3
    stages = [(3, 16, 1)] + [
        (kernel_size, width, depth)
        for kernel_size, width, depth in zip((3, 5, 3, 5, 5, 3), widths, (*depths, 1), strict=True)
    ]
    expected = [(k, width) for k, width, depth in stages for _ in range(depth)]
    assert [(b.kernel_size, b.out_channels) for b in network.active_blocks] == expected
    assert all(b.mid_channels == 6 * b.in_channels for b in network.active_blocks[1:])
    assert spec.smallest.depths == (1,) * 5
    small = spec.network_config(spec.smallest, 2)
    assert [block.kernel_size for block in small.active_blocks] == [3] * 7


def test_a_suffix_names_ones_own():
    spec = SupernetSpec.parse("efficientnet_lite0_mydata")
    assert replace(spec, id="efficientnet_lite0") == SupernetSpec.parse("efficientnet_lite0")
    assert SupernetSpec.parse("efficientnet_lite0_gn_mine").norm == GROUP_NORM
    for other in ("efficientnet_lite3", "efficientnet_lite00", "efficientnet_lite0mine"):
        with pytest.raises(SpaceError, match=other):
            SupernetSpec.parse(other)


@pytest.mark.parametrize("base", ["efficientnet_lite1_gn", "ofa_mbv3_d23_e34_k35_w1.25"])
def test_base_of(base):
    assert base_of(base) == base_of(f"{base}_mine") == base


def test_choices_are_each_stages_own():
    spec = SupernetSpec.parse("efficientnet_lite0")
    with pytest.raises(SpaceError, match=r"kernel_sizes\[0\] must be one of \[3\] but got 5"):
        spec.check(replace(spec.largest, kernel_sizes=(5,) * 15))
    with pytest.raises(SpaceError, match=r"depths\[0\] must be one of \[1, 2\] but got 3"):
        spec.check(replace(spec.largest, depths=(3,) * 5))
    assert spec.uniform(5, 6, 4) == spec.largest
    assert spec.uniform(5, 6, 3).depths == (2, 2, 3, 3, 3)
    with pytest.raises(SpaceError, match=r"kernel_sizes of .* but got 7"):
        spec.uniform(7, 6, 4)
    assert len(set(spec.uniform_subnets)) == len(spec.uniform_subnets)
    assert SupernetSpec.parse(IDS[0]).resolutions == (48, 64, 80, 96)
    assert (spec.resolutions[0], spec.resolutions[-1]) == (64, 224)
