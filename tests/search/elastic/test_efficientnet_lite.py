"""Against the published package, of whose weights the supernets are made."""

import random
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from search.elastic.bundle_lite import bundle
from search.elastic.supernet import load_supernet, supernet_from_weights
from search.elastic.weights_file import read_weights
from search.errors import SupernetError
from search.space.architecture import SupernetSpec
from search.space.candidates import sample_subnet
from search.supernets.packages import PACKAGES
from search.supernets.registry import list_supernets, locate
from tinytl.description.method import Method
from tinytl.engine.network import build_network
from tinytl.engine.ops.normalize import normalize

NAMES = list(PACKAGES)
MISSING = [p.requirement for p in PACKAGES.values() if p.path is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING) or find_spec("efficientnet_lite_pytorch") is None,
    reason=f"not installed: efficientnet-lite-pytorch or one of {MISSING}",
)


def reference(name, side):
    """It pads for the one size that it is made for."""
    from efficientnet_lite_pytorch import EfficientNet

    path = str(PACKAGES[name].path)
    model = EfficientNet.from_pretrained(
        name.replace("_", "-"), weights_path=path, image_size=side
    )
    return model.eval()


def published(name):
    weights = read_weights(PACKAGES[name].path)
    return supernet_from_weights(SupernetSpec.parse(name), weights, source=name)


def random_images(side, count=2):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(side))


@pytest.mark.parametrize(
    ("name", "sides"),
    [(NAMES[0], (64, 65, 97, 112, 224)), (NAMES[1], (72, 97)), (NAMES[2], (72,))],
)
@torch.no_grad()
def test_the_full_network_is_the_published_one(name, sides):
    supernet = published(name)
    assert supernet.num_classes == 1000
    for side in sides:
        images = random_images(side)
        found = supernet.forward(supernet.spec.largest, images)
        torch.testing.assert_close(found, reference(name, side)(images), atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_engine_builds_the_same_subnets():
    supernet = published(NAMES[0])
    rng = random.Random(0)
    for side, subnet in ((64, supernet.spec.largest), (65, sample_subnet(supernet.spec, rng))):
        network = build_network(*in_turn(supernet.extract(subnet)), weight_bits=32)
        images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
        normalized = normalize(images, supernet.spec.normalization)
        expected = supernet.forward(subnet, normalized)
        torch.testing.assert_close(network(images), expected, atol=1e-3, rtol=1e-3)


def in_turn(extracted):
    config, weights = extracted
    return config, Method.HEAD, weights


def test_channels_are_sorted_and_kernels_are_cut_from_the_middle():
    supernet = published(NAMES[0])
    spec, blocks = supernet.spec, supernet.network.blocks
    for block in blocks[1:]:
        importance = block.conv.point_linear.conv.conv.weight.abs().sum((0, 2, 3))
        assert (importance.diff() <= 1e-6).all()
    subnet = sample_subnet(spec, random.Random(0))
    _, weights = supernet.extract(subnet)
    for position, index in supernet.positions(subnet).items():
        weight = weights[f"blocks.{position}.conv.depth_conv.conv.weight"]
        whole = blocks[index].conv.depth_conv.conv.conv.weight
        margin = (whole.shape[-1] - weight.shape[-1]) // 2
        middle = whole[: len(weight), :, margin:, margin:][
            ..., : weight.shape[-1], : weight.shape[-1]
        ]
        assert torch.equal(weight, middle)


def test_the_bundled_one_is_made_of_the_same_bytes(tmp_path):
    path = bundle(NAMES[0], tmp_path)
    bundled = locate(NAMES[0], tmp_path).path
    assert path.read_bytes() == bundled.read_bytes()
    assert path.with_suffix(".json").read_text() == bundled.with_suffix(".json").read_text()
    assert bundled.stat().st_size <= 7_000_000
    licence = bundled.with_name(f"{NAMES[0]}.LICENSE.txt").read_text()
    assert "Apache License" in licence


@torch.no_grad()
def test_the_bundled_one_has_no_head(tmp_path):
    supernet, whole = load_supernet(NAMES[0], tmp_path), published(NAMES[0])
    assert supernet.num_classes == 0
    images = random_images(64)
    features = supernet.forward(supernet.spec.largest, images)
    assert features.shape == (2, 1280)
    logits = whole.network.classifier(features)
    torch.testing.assert_close(
        logits, whole.forward(whole.spec.largest, images), atol=0.05, rtol=0.05
    )


def test_packages_are_listed_where_they_are_installed(tmp_path, monkeypatch):
    assert {i.id: i.source for i in list_supernets(tmp_path)}[NAMES[1]] == "package"
    assert locate(NAMES[1], tmp_path).path == PACKAGES[NAMES[1]].path
    monkeypatch.setitem(PACKAGES, NAMES[1], replace(PACKAGES[NAMES[1]], module="not_there"))
    assert NAMES[1] not in {i.id for i in list_supernets(tmp_path)}
    with pytest.raises(SupernetError, match=r"efficientnet_lite1.*pip install 'tinyfit\[lite\]'"):
        locate(NAMES[1], tmp_path)
    monkeypatch.setitem(PACKAGES, NAMES[2], replace(PACKAGES[NAMES[2]], sha256="0"))
    with pytest.raises(SupernetError, match="not the published file"):
        locate(NAMES[2], tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: w.__setitem__("_blocks.3._se_reduce.weight", torch.zeros(1)), "no tensor"),
        (lambda w: w.pop("_blocks.3._project_conv.weight"), "lacks 1 tensors"),
        (lambda w: w.pop("_fc.weight"), "lacks the classifier"),
        (lambda w: w.__setitem__("_conv_stem.weight", torch.zeros(8, 3, 3, 3)), "size mismatch"),
    ],
)
def test_another_network_is_refused(spoil, message):
    weights = read_weights(PACKAGES[NAMES[0]].path)
    spoil(weights)
    with pytest.raises(SupernetError, match=message):
        supernet_from_weights(SupernetSpec.parse(NAMES[0]), weights, source="test")
