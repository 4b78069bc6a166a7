from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from search.architecture import SupernetSpec
from search.ofa_package import build_elastic_network
from tinytl.config import NormConfig, with_lite_residuals
from tinytl.data import ImageStore, Sample, ingest

PROXYLESS = "ofa_proxyless_d234_e346_k357_w0.35"
MOBILENETV3 = "ofa_mbv3_d234_e346_k357_w1.0"
GROUP_NORM = NormConfig(kind="group", eps=1e-3, weight_standardization_eps=1e-5)


def small_network(supernet=PROXYLESS, *, num_classes=5, group_norm=False, lite=True):
    """The supernet's smallest subnet."""
    spec = SupernetSpec.parse(supernet)
    network = spec.network_config(spec.smallest, num_classes)
    if group_norm:
        network = replace(network, norm=GROUP_NORM)
    return with_lite_residuals(network) if lite else network


def static_network(supernet, seed=0):
    """ofa's static network of the supernet's smallest subnet, every tensor made random."""
    spec = SupernetSpec.parse(supernet)
    elastic = build_elastic_network(spec, 5)
    smallest = spec.smallest
    elastic.set_active_subnet(
        ks=list(smallest.kernel_sizes), e=list(smallest.expand_ratios), d=list(smallest.depths)
    )
    static = elastic.get_active_subnet().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in static.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1, generator=generator)
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
    return static


@pytest.fixture(name="small_network")
def small_network_fixture():
    """The function above."""
    return small_network


@pytest.fixture(name="static_network")
def static_network_fixture():
    """The function above."""
    return static_network


@pytest.fixture
def store(tmp_path):
    """Two classes of plain images, told apart by colour: 12 to train on, 4 and 4 held out."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(20):
        pixels = rng.integers(0, 80, size=(40, 56, 3), dtype=np.uint8)
        pixels[..., number % 2] += 150
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path)
        split = "train" if number < 12 else "val" if number < 16 else "test"
        samples.append(Sample(path=path, label=number % 2, split=split))
    ingest(samples, ["red", "green"], tmp_path / "images", image_size=48)
    return ImageStore.open(tmp_path / "images")
