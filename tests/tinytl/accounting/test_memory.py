"""Prediction against training: never below what the allocator gives out, and close."""

import gc
import itertools
import random
from dataclasses import replace

import pytest
import torch

from search.space.architecture import SupernetSpec
from search.space.candidates import sample_subnet
from tinytl.accounting.memory import peak_memory
from tinytl.description.config import (
    GROUP_NORM,
    BlockConfig,
    ConvConfig,
    LiteResidualSize,
    NetworkConfig,
    NormConfig,
    with_lite_residuals,
)
from tinytl.description.method import Method
from tinytl.description.plan import Plan, Stretch
from tinytl.engine.network import build_network
from tinytl.errors import ConfigError
from tinytl.measurement.measure import random_store
from tinytl.measurement.tracker import allocator_peak_bytes, live_tensor_bytes, storage_peak_bytes
from tinytl.training.train import TrainSettings, train

pytestmark = pytest.mark.long

PROXYLESS = "ofa_proxyless_d234_e346_k357_w0.35"
WIDE_PROXYLESS = "ofa_proxyless_d234_e346_k357_w1.3"
MOBILENETV3 = "ofa_mbv3_d234_e346_k357_w1.0"
WIDE_MOBILENETV3 = "ofa_mbv3_d234_e346_k357_w1.2"
_LARGEST_BATCH_PIXELS = 8 * 224**2


def _stretches(*stretches):
    return tuple(
        Stretch(from_stage=stage, micro_batch_size=size, recomputes=recomputes)
        for stage, size, recomputes in stretches
    )


@pytest.fixture(autouse=True)
def two_threads():
    """Some operators take memory for each."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def check(tmp_path):
    def run(network, method, plan, resolution, image_size=None):
        predicted = peak_memory(network, method, plan, resolution, image_size=image_size)
        model = build_network(network, method, generator=torch.Generator().manual_seed(0))
        model.store_trained(plan.trained_bits)
        its_bytes = sum(x.nbytes for x in itertools.chain(model.parameters(), model.buffers()))
        store = random_store(network.num_classes, image_size or resolution, 2, plan, tmp_path)
        gc.collect()
        alive = live_tensor_bytes() - its_bytes

        def work():
            settings = TrainSettings(epochs=1)
            train(model, store, resolution=resolution, plan=plan, settings=settings)

        allocated = allocator_peak_bytes(work) - alive
        stored = storage_peak_bytes(work) - alive
        assert allocated <= predicted.total_bytes
        visible = stored + predicted.workspace_bytes
        assert predicted.total_bytes <= 1.02 * visible + (1 << 16)
        assert sum(predicted.breakdown.values()) == predicted.total_bytes

    return run


@pytest.mark.parametrize("group_norm", [False, True], ids=["batch_norm", "group_norm"])
@pytest.mark.parametrize("method", list(Method))
def test_prediction_is_what_training_takes(check, method, group_norm):
    """Ragged micro-batches, stretches that recompute, 8-bit moments, bfloat16, both families."""
    number = list(Method).index(method)
    supernet = (PROXYLESS, MOBILENETV3)[(number + group_norm) % 2]
    spec = SupernetSpec.parse(supernet.replace("_d234_", "_d2_"))
    network = spec.network_config(sample_subnet(spec, random.Random(number)), 5)
    if group_norm:
        network = replace(network, norm=GROUP_NORM)
    if method.uses_lite_residual:
        network = with_lite_residuals(network)
    first = (0, 2, bool((number + group_norm) % 3))
    plan = Plan(
        batch_size=3,
        stretches=_stretches(first, (2, 1, False)) if number % 3 else _stretches((0, 2, False)),
        optimizer_bits=8 if number % 2 else 32,
        trained_bits=16 if group_norm else 32,
    )
    check(network, method, plan, 48)


@pytest.mark.parametrize(
    ("supernet", "method", "batch_size", "resolution", "num_classes", "image_size"),
    [
        (WIDE_PROXYLESS, Method.BIAS, 3, 80, 1000, None),
        (WIDE_PROXYLESS, Method.NORM_HEAD, 1, 97, 2, None),
        (WIDE_PROXYLESS, Method.LITE_RESIDUAL, 3, 48, 102, None),
        (WIDE_MOBILENETV3, Method.HEAD, 1, 160, 1000, None),
        (PROXYLESS, Method.HEAD, 1, 48, 10, 512),
        (PROXYLESS, Method.LITE_RESIDUAL_BIAS, 1, 48, 10, 512),
    ],
)
def test_cases_that_were_once_predicted_too_low(
    supernet, check, method, batch_size, resolution, num_classes, image_size
):
    """Padded layouts, a map held too long, large stored images."""
    spec = SupernetSpec.parse(supernet)
    network = spec.network_config(spec.smallest, num_classes)
    if method.uses_lite_residual:
        network = with_lite_residuals(network)
    check(network, method, Plan.whole(batch_size), resolution, image_size)


def _two_blocks(channels, mid_channels, norm):
    """A network of two alike."""
    block = BlockConfig(
        in_channels=channels,
        mid_channels=mid_channels,
        out_channels=channels,
        kernel_size=3,
        stride=1,
        has_expansion=mid_channels != channels,
        activation="relu6",
        squeeze_excite=False,
        shortcut=True,
    )
    first_conv = ConvConfig(
        in_channels=3, out_channels=channels, kernel_size=3, stride=2, activation="relu6"
    )
    return NetworkConfig(
        family="proxyless",
        norm=norm,
        first_conv=first_conv,
        blocks=(block, block),
        final_expand=None,
        feature_mix=replace(first_conv, in_channels=channels, kernel_size=1, stride=1),
        num_classes=2,
    )


_LITE0_PLANS = {
    "whole": Plan.whole(4),
    "one by one": replace(Plan.whole(4, 1), optimizer_bits=8),
    "ragged": replace(Plan.whole(3, 2), trained_bits=16),
    "stretches": Plan(
        batch_size=4, stretches=_stretches((0, 1, True), (2, 2, True), (3, 4, False))
    ),
}


@pytest.mark.parametrize("resolution", [64, 65])
@pytest.mark.parametrize("method", list(Method), ids=str)
def test_same_padding(check, lite0, method, resolution):
    """On even maps kernels are laid out; a plan for each method and size, in turn."""
    number = list(Method).index(method) + resolution
    plan = list(_LITE0_PLANS.values())[number % len(_LITE0_PLANS)]
    check(lite0(lite=method.uses_lite_residual, shallow=True), method, plan, resolution)


@pytest.mark.slow
@pytest.mark.parametrize("group_norm", [False, True], ids=["batch_norm", "group_norm"])
@pytest.mark.parametrize("plan", _LITE0_PLANS.values(), ids=_LITE0_PLANS)
@pytest.mark.parametrize("resolution", [64, 96, 97, 160, 224])
@pytest.mark.parametrize("method", list(Method), ids=str)
def test_same_padding_with_every_plan(check, lite0, method, resolution, plan, group_norm):
    network = lite0(lite=method.uses_lite_residual)
    network = replace(network, norm=GROUP_NORM) if group_norm else network
    check(network, method, plan, resolution)


def test_groups_of_single_channels(check):
    """Each has statistics of its own."""
    norm = replace(GROUP_NORM, channels_per_group=1)
    check(_two_blocks(64, 256, norm), Method.BIAS, Plan.whole(16), 2)


def test_lite_residuals_without_groups(check):
    """torch convolves a single small image by its own code, with columns."""
    size = LiteResidualSize(groups=1, max_kernel_size=3)
    network = with_lite_residuals(_two_blocks(32, 32, NormConfig()), size)
    check(network, Method.LITE_RESIDUAL, Plan.whole(1), 80)


@pytest.mark.parametrize(
    ("trained_bits", "batch_size", "resolution", "method"),
    [
        (32, 4, 160, Method.LITE_RESIDUAL_BIAS),  # sums of a group norm, for each thread
        (16, 2, 64, Method.FULL),  # gradient of weight standardization
    ],
)
def test_group_norms_once_predicted_wrong(check, trained_bits, batch_size, resolution, method):
    spec = SupernetSpec.parse(WIDE_PROXYLESS)
    network = replace(spec.network_config(spec.smallest, 3), norm=GROUP_NORM)
    if method.uses_lite_residual:
        network = with_lite_residuals(network)
    plan = replace(Plan.whole(batch_size, 1), trained_bits=trained_bits)
    check(network, method, plan, resolution)


def test_the_gradient_of_hard_swish_has_no_room_of_its_own(check):
    """Once it had, in a plan whose peak is there."""
    spec = SupernetSpec.parse(MOBILENETV3)
    network = spec.network_config(spec.smallest, 10)
    stretches = _stretches((0, 1, True), (3, 2, True), (4, 8, False))
    plan = Plan(batch_size=8, stretches=stretches, optimizer_bits=8, trained_bits=16)
    check(network, Method.BIAS, plan, 224)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300))
def test_prediction_is_what_training_of_random_candidates_takes(check, seed):
    rng = random.Random(seed)
    supernets = (PROXYLESS, WIDE_PROXYLESS, MOBILENETV3, WIDE_MOBILENETV3)
    spec = SupernetSpec.parse(rng.choice(supernets))
    network = spec.network_config(sample_subnet(spec, rng), rng.choice([3, 102, 1000]))
    if rng.random() < 0.5:
        network = replace(network, norm=GROUP_NORM)
    method = rng.choice(list(Method))
    if method.uses_lite_residual:
        network = with_lite_residuals(network)
    resolution = rng.choice([96, 128, 160, 192, 224, 320])
    batch_size = min(rng.choice([1, 2, 4, 8, 16, 32]), _LARGEST_BATCH_PIXELS // resolution**2)
    check(network, method, _random_plan(rng, batch_size), resolution)


def _random_plan(rng, batch_size):
    starts = [0, *sorted(rng.sample(range(1, 5), rng.randint(0, 2)))]
    return Plan(
        batch_size=batch_size,
        stretches=_stretches(
            *(
                (start, rng.randint(1, batch_size), start != starts[-1] and rng.random() < 0.5)
                for start in starts
            )
        ),
        optimizer_bits=rng.choice([8, 32]),
        trained_bits=rng.choice([16, 32]),
    )


def test_a_smaller_micro_batch_takes_less(small_network):
    peaks = [
        peak_memory(small_network(), Method.LITE_RESIDUAL_BIAS, Plan.whole(8, size), 128)
        for size in (8, 4, 2)
    ]
    totals = [peak.total_bytes for peak in peaks]
    assert totals == sorted(set(totals), reverse=True)


def test_methods_take_what_the_paper_orders(small_network):
    """Head below bias below lite residual + bias below norm + head below full (paper, table 2)."""
    order = [Method.HEAD, Method.BIAS, Method.LITE_RESIDUAL_BIAS, Method.NORM_HEAD, Method.FULL]
    peaks = [
        peak_memory(small_network(lite=m.uses_lite_residual), m, Plan(), 160).total_bytes
        for m in order
    ]
    assert peaks == sorted(set(peaks))


def test_equal_networks_cost_the_same_however_they_were_made(small_network):
    """Costs are looked up by the identity of blocks first."""
    network = small_network()
    twin = replace(network, blocks=tuple(replace(block) for block in network.blocks))
    plan = Plan.whole(8, 3)
    peaks = [peak_memory(n, Method.LITE_RESIDUAL_BIAS, plan, 96) for n in (network, twin)]
    assert peaks[0] == peaks[1]


def test_a_stretch_beyond_the_network_is_refused(small_network):
    plan = Plan(stretches=_stretches((0, 8, False), (9, 8, False)))
    with pytest.raises(ConfigError, match="starts at stage 9"):
        peak_memory(small_network(), Method.BIAS, plan, 96)
