"""The device trainer, built once for all tests, and bundles for it."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from search.space.architecture import SupernetSpec
from tests.tinytl.native.device_library import Library
from tinytl.description.config import GROUP_NORM, Normalization, with_lite_residuals
from tinytl.engine.network import build_network
from tinytl.native.build import BuildError, build_library, build_trainer

PROXYLESS = "ofa_proxyless_d234_e346_k357_w0.35"
MOBILENETV3 = "ofa_mbv3_d234_e346_k357_w0.5"


def _built(build, *options):
    """By the system's compiler where there is one: it is the faster builder."""
    if "CC" not in os.environ and shutil.which("gcc"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CC", "gcc")
            return build(options=options)
    try:
        return build(options=options)
    except BuildError as error:
        if "no C compiler" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="session")
def library():
    return Library(_built(build_library, "-O1"))


@pytest.fixture(scope="session")
def trainer():
    """The executable; it stops after so many bytes have been written where the environment says
    so (see files.c)."""
    return _built(build_trainer, "-O1", "-DSTOP_AT_WRITE")


LITE = Normalization(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


def make_network(
    method,
    *,
    mobilenet=False,
    group_norm=False,
    tensorflow=False,
    num_classes=3,
    dropout_rate=0.0,
):
    """The smallest subnet, with values that make every gradient count. tensorflow: padded and
    normalized as EfficientNet-Lite."""
    spec = SupernetSpec.parse(MOBILENETV3 if mobilenet else PROXYLESS)
    config = replace(spec.network_config(spec.smallest, num_classes), dropout_rate=dropout_rate)
    if group_norm:
        config = replace(config, norm=GROUP_NORM)
    if tensorflow:
        config = replace(config, padding="same", normalization=LITE)
    if method.uses_lite_residual:
        config = with_lite_residuals(config)
    generator = torch.Generator().manual_seed(3)
    network = build_network(config, method, generator=generator)
    with torch.no_grad():
        for name, parameter in network.trained_parameters().items():
            if name.endswith("final_bn.weight"):
                parameter.normal_(0, 0.3, generator=generator)
            elif name.endswith(".bias"):
                parameter.normal_(0, 0.2, generator=generator)
    return network


@pytest.fixture(name="make_network")
def make_network_fixture():
    return make_network


@pytest.fixture
def images():
    """Images of three classes, told apart by colour: uint8 (30, 3, 40, 40) and labels."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 90, (30, 3, 40, 40), dtype=np.uint8)
    labels = np.arange(30) % 3
    pixels[np.arange(30), labels] += 120
    return pixels, labels
