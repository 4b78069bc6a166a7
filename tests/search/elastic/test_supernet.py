import random
from argparse import Namespace

import pytest
import torch
from safetensors.torch import save_file

from search.elastic.supernet import (
    load_supernet,
    supernet_from_weights,
    supernet_tensors,
    untrained_supernet,
)
from search.errors import SupernetError
from search.space.architecture import SupernetSpec
from search.space.candidates import sample_subnet
from search.supernets.registry import (
    OFFICIAL_BLOB_IDS,
    bundled_supernets,
    git_blob_id,
    list_supernets,
)
from tinytl.description.config import with_lite_residuals
from tinytl.description.method import Method
from tinytl.description.ofa_format import from_ofa
from tinytl.engine.lite_residual import LiteResidual
from tinytl.engine.network import build_network

PROXYLESS = "ofa_proxyless_d23_e34_k35_w0.2"
MBV3 = "ofa_mbv3_d23_e34_k35_w0.2"
FAMILIES = pytest.mark.parametrize("supernet_id", [PROXYLESS, MBV3])
CLASSIFIER = "classifier.linear.weight"


def images(count=6, resolution=48, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, resolution, resolution, generator=generator)


def ofa_subnet(net, subnet):
    net.set_active_subnet(
        ks=list(subnet.kernel_sizes), e=list(subnet.expand_ratios), d=list(subnet.depths)
    )
    return net.get_active_subnet(preserve_weight=True).eval()


def subnets(spec, count):
    rng = random.Random(5)
    return [spec.largest, spec.smallest, *(sample_subnet(spec, rng) for _ in range(count))]


@FAMILIES
def test_extract_equals_ofa_s_active_subnet(supernet_id, elastic_network):
    net = elastic_network(supernet_id)
    supernet = supernet_from_weights(
        SupernetSpec.parse(supernet_id), net.state_dict(), source="test"
    )
    for subnet in subnets(supernet.spec, 4):
        expected = ofa_subnet(net, subnet)
        config, weights = supernet.extract(subnet)
        assert config == from_ofa(expected.config)
        reference = {
            key: value
            for key, value in expected.state_dict().items()
            if not key.endswith("num_batches_tracked")
        }
        assert weights.keys() == reference.keys()
        for key, value in weights.items():
            assert torch.equal(value, reference[key]), key
        with torch.no_grad():
            torch.testing.assert_close(
                supernet.forward(subnet, images()), expected(images()), rtol=1e-5, atol=1e-5
            )


@FAMILIES
def test_extracted_weights_are_copies_that_tinytl_builds_from(supernet_id, elastic_network):
    net = elastic_network(supernet_id)
    supernet = supernet_from_weights(
        SupernetSpec.parse(supernet_id), net.state_dict(), source="test"
    )
    config, weights = supernet.extract(supernet.spec.smallest)
    network = build_network(config, Method.HEAD, weights, weight_bits=32)
    expected = supernet.forward(supernet.spec.smallest, images())
    torch.testing.assert_close(network(images()), expected, rtol=1e-4, atol=1e-4)
    for value in weights.values():
        value.zero_()
    assert torch.equal(supernet.forward(supernet.spec.smallest, images()), expected)


@FAMILIES
def test_lite_residuals_run_beside_their_blocks(supernet_id, elastic_network):
    spec = SupernetSpec.parse(supernet_id)
    net = elastic_network(supernet_id)
    supernet = supernet_from_weights(spec, net.state_dict(), source="test")
    full = with_lite_residuals(spec.network_config(spec.largest, 7))
    generator = torch.Generator().manual_seed(0)
    modules = {}
    for index, block in enumerate(full.blocks):
        if block.lite_residual is not None:
            modules[index] = LiteResidual(block.lite_residual, generator)
            modules[index].final_bn.weight.data.fill_(0.5)
    for subnet in subnets(spec, 2):
        config, weights = supernet.extract(subnet)
        config = with_lite_residuals(config)
        for position, index in supernet.positions(subnet).items():
            assert config.blocks[position].lite_residual == full.blocks[index].lite_residual
            for name, value in modules[index].state_dict().items():
                weights[f"blocks.{position}.lite_residual.{name}"] = value
        network = build_network(config, Method.LITE_RESIDUAL_BIAS, weights, weight_bits=32)
        with torch.no_grad():
            actual = supernet.forward(subnet, images(), modules)
            torch.testing.assert_close(network(images()), actual, rtol=1e-3, atol=1e-3)
            assert not torch.allclose(supernet.forward(subnet, images()), actual, atol=1e-2)


def test_recalibrate_averages_batch_statistics(elastic_network):
    supernet = supernet_from_weights(
        SupernetSpec.parse(PROXYLESS), elastic_network(PROXYLESS).state_dict(), source="test"
    )
    subnet = supernet.spec.smallest
    batches = [images(8, seed=1), images(8, seed=2)]
    supernet.recalibrate(subnet, batches)
    norm = supernet.network.first_conv.bn
    outputs = [supernet.network.first_conv.conv(batch) for batch in batches]
    mean = sum(output.mean((0, 2, 3)) for output in outputs) / 2
    variance = sum(output.var((0, 2, 3)) for output in outputs) / 2
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert norm.momentum == 0.1
    assert not norm.training
    once = supernet.extract(subnet)[1]
    supernet.recalibrate(supernet.spec.largest, batches)
    supernet.recalibrate(subnet, batches)
    for key, value in supernet.extract(subnet)[1].items():
        assert torch.equal(value, once[key]), key


@pytest.mark.parametrize("spec", bundled_supernets(), ids=lambda spec: spec.id)
def test_bundled_loads(spec, tmp_path):
    supernet = load_supernet(spec.id, tmp_path)
    has_head_and_modules = spec.id.startswith("ofa")
    assert bool(supernet.lite_residuals) == has_head_and_modules
    assert supernet.num_classes == (200 if has_head_and_modules else 0)
    assert not any(p.requires_grad for p in supernet.network.parameters())
    assert supernet.forward(supernet.spec.smallest, images(2, 32)).isfinite().all()


@FAMILIES
def test_official_format_over_loopback(
    supernet_id, file_server, tmp_path, monkeypatch, elastic_network, official_format
):
    url, folder = file_server
    net = elastic_network(supernet_id)
    torch.save({"state_dict": official_format(net)}, folder / supernet_id)
    monkeypatch.setitem(OFFICIAL_BLOB_IDS, supernet_id, git_blob_id(folder / supernet_id))
    supernet = load_supernet(supernet_id, tmp_path / "cache", base_url=url)
    for key, value in supernet.network.state_dict().items():
        assert torch.equal(value, net.state_dict()[key]), key


def test_user_files(tmp_path, elastic_network, official_format):
    net = elastic_network(MBV3)
    half = {
        key: value.half() if value.is_floating_point() else value
        for key, value in net.state_dict().items()
    }
    save_file(half, tmp_path / f"{MBV3}.safetensors")
    torch.save(official_format(net), tmp_path / f"{MBV3}_bare.pth")
    first = load_supernet(tmp_path / f"{MBV3}.safetensors", tmp_path)
    second = load_supernet(tmp_path / f"{MBV3}_bare.pth", tmp_path)
    assert second.num_classes == 7
    assert second.spec.id == f"{MBV3}_bare"
    for key, value in first.network.state_dict().items():
        torch.testing.assert_close(value, second.network.state_dict()[key], rtol=1e-3, atol=1e-3)


class Malicious:
    def __reduce__(self):
        return (open, ("malicious-was-here", "w"))


def without(key):
    return lambda weights: weights.pop(key)


def replaced(key, value):
    return lambda weights: weights.__setitem__(key, value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("blocks.2.conv.depth_conv.bn.bn.running_mean"), "lacks 1 tensors .*running_mean"),
        (without("blocks.1.conv.depth_conv.conv.5to3_matrix"), "lacks 1 tensors .*5to3_matrix"),
        (without("classifier.linear.bias"), "lacks 1 tensors"),
        (without(CLASSIFIER), "lacks the classifier"),
        (replaced(CLASSIFIER, torch.zeros(7, 3)), "size mismatch for classifier"),
        (replaced(CLASSIFIER, torch.zeros(9, 256)), "size mismatch for classifier"),
        (replaced("first_conv.conv.weight", torch.zeros(8, 3, 5, 5)), "size mismatch"),
        (replaced("first_conv.bn.bias", torch.full((8,), torch.nan)), "first_conv.bn.bias"),
        (replaced("extra.linear.weight", torch.zeros(1)), "has no tensor 'extra"),
        (replaced("unheard", torch.zeros(1)), "unheard"),
    ],
)
def test_weights_of_something_else(spoil, message, elastic_network):
    weights = dict(elastic_network(PROXYLESS).state_dict())
    spoil(weights)
    with pytest.raises(SupernetError, match=message):
        supernet_from_weights(SupernetSpec.parse(PROXYLESS), weights, source="test")


LITE = "blocks.3.lite_residual"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without(f"{LITE}.conv1.weight"), rf"lacks '{LITE}\.conv1\.weight' of its lite residuals"),
        (
            replaced(f"{LITE}.bn1.bias", torch.zeros(3)),
            r"'blocks\.3.*bn1\.bias' must have .* \(3,\)",
        ),
        (
            replaced(f"{LITE}.bn1.running_mean", torch.zeros(8)),
            "no lite residual .*running",
        ),
        (replaced("blocks.0.lite_residual.bn1.bias", torch.zeros(8)), "has no lite residual"),
        (replaced(f"{LITE}.conv2.weight", torch.full((8, 8, 1, 1), torch.nan)), "not finite"),
    ],
)
def test_lite_residuals_are_whole_or_refused(spoil, message):
    spec = SupernetSpec.parse(PROXYLESS)
    generator = torch.Generator().manual_seed(0)
    supernet = untrained_supernet(spec, 7, lite_residuals=True, generator=generator)
    weights = supernet_tensors(supernet)
    loaded = supernet_from_weights(spec, weights, source="test")
    assert loaded.lite_residuals.keys() == set(range(1, spec.num_dynamic_blocks + 1))
    for index, module in loaded.lite_residuals.items():
        for name, value in module.state_dict().items():
            assert torch.equal(value, weights[f"blocks.{index}.lite_residual.{name}"].float())
    spoil(weights)
    with pytest.raises(SupernetError, match=message):
        supernet_from_weights(spec, weights, source="test")


def test_group_norm_weights_are_of_another_architecture_than_batch_norm(elastic_network):
    weights = elastic_network(PROXYLESS).state_dict()
    with pytest.raises(SupernetError, match="running_mean"):
        supernet_from_weights(SupernetSpec.parse(f"{PROXYLESS}_gn"), weights, source="test")
    weights = elastic_network(f"{PROXYLESS}_gn").state_dict()
    with pytest.raises(SupernetError, match=r"lacks .*running_mean"):
        supernet_from_weights(SupernetSpec.parse(PROXYLESS), weights, source="test")


def test_another_architecture_than_named(elastic_network):
    weights = elastic_network(PROXYLESS).state_dict()
    for supernet_id in (MBV3, "ofa_proxyless_d23_e34_k35_w0.5", "ofa_proxyless_d23_e34_k357_w0.2"):
        with pytest.raises(SupernetError, match=supernet_id):
            supernet_from_weights(SupernetSpec.parse(supernet_id), weights, source="test")


def test_counters_may_be_missing(elastic_network):
    weights = {
        key: value
        for key, value in elastic_network(PROXYLESS).state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    supernet_from_weights(SupernetSpec.parse(PROXYLESS), weights, source="test")


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", bytes(1000)])
def test_damaged_file(tmp_path, suffix, content):
    path = tmp_path / f"{PROXYLESS}.{suffix}"
    path.write_bytes(content)
    with pytest.raises(SupernetError, match=PROXYLESS):
        load_supernet(path, tmp_path)


def test_truncated_file(tmp_path, elastic_network):
    weights = elastic_network(PROXYLESS).state_dict()
    for path in (tmp_path / f"{PROXYLESS}.pth", tmp_path / f"{PROXYLESS}.safetensors"):
        if path.suffix == ".pth":
            torch.save({"state_dict": weights}, path)
        else:
            save_file(weights, path)
        path.write_bytes(path.read_bytes()[:-500])
        with pytest.raises(SupernetError, match=PROXYLESS):
            load_supernet(path, tmp_path)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {"a": 1}}, {1: torch.zeros(1)}])
def test_torch_file_of_something_else(tmp_path, content):
    path = tmp_path / f"{PROXYLESS}.pth"
    torch.save(content, path)
    with pytest.raises(SupernetError, match="must hold"):
        load_supernet(path, tmp_path)


def test_files_as_ofa_names_and_fills_them(tmp_path, elastic_network):
    """No suffix; RunManager's .pth.tar with what it stores beside the weights; DataParallel's
    names; .pt; an argparse namespace, which is not used."""
    weights = dict(elastic_network(PROXYLESS).state_dict())
    parallel = {f"module.{key}": value for key, value in weights.items()}
    contents = {
        PROXYLESS: {"state_dict": weights},
        f"{PROXYLESS}_run.pth.tar": {"state_dict": weights, "epoch": 3, "best_acc": 40.0},
        f"{PROXYLESS}_parallel.pth": {"state_dict": parallel},
        f"{PROXYLESS}_bare.pt": weights,
        f"{PROXYLESS}_arguments.pth": {"state_dict": weights, "args": Namespace(lr=0.1)},
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / name)
        found = load_supernet(tmp_path / name, tmp_path)
        assert found.spec.id == name.removesuffix(".tar").removesuffix(".pth").removesuffix(".pt")
        assert torch.equal(found.network.first_conv.conv.weight, weights["first_conv.conv.weight"])
    listed = {info.id for info in list_supernets(tmp_path) if info.source == "file"}
    assert listed == {str(tmp_path / name) for name in contents}


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"{PROXYLESS}.pth"
    torch.save({"state_dict": {"first_conv.conv.weight": Malicious()}}, path)
    with pytest.raises(SupernetError, match=r"save it anew .* more than tensors$"):
        load_supernet(path, tmp_path)
    assert not (tmp_path / "malicious-was-here").exists()
