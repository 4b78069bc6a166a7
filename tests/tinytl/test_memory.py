"""Prediction against measurement: never below, and close."""

import itertools
import random

import pytest
import torch

from search.architecture import SupernetSpec
from search.space import sample_subnet
from tinytl.config import with_lite_residuals
from tinytl.measure import random_store
from tinytl.memory import peak_memory
from tinytl.network import build_network
from tinytl.plan import Plan
from tinytl.tracker import allocator_peak_bytes
from tinytl.train import TrainSettings, train
from tinytl.trainable import Method

PROXYLESS = "ofa_proxyless_d234_e346_k357_w0.35"
MOBILENETV3 = "ofa_mbv3_d234_e346_k357_w1.0"
_PLANS = (Plan(batch_size=1, micro_batch_sizes=(1,)), Plan(batch_size=4, micro_batch_sizes=(2,)))


def _measured_peak(network, method, plan, resolution, image_size, directory):
    model = build_network(network, method, generator=torch.Generator().manual_seed(0))
    alive = allocator_peak_bytes(lambda: None) - sum(
        tensor.nbytes for tensor in itertools.chain(model.parameters(), model.buffers())
    )

    def work():
        store = random_store(network.num_classes, image_size, 2, plan, directory)
        train(model, store, resolution=resolution, plan=plan, settings=TrainSettings(epochs=1))

    return allocator_peak_bytes(work) - alive


@pytest.fixture
def check(tmp_path):
    def run(network, method, plan, resolution, image_size=None):
        image_size = image_size or resolution
        predicted = peak_memory(network, method, plan, resolution, image_size=image_size)
        measured = _measured_peak(network, method, plan, resolution, image_size, tmp_path)
        assert measured <= predicted.total_bytes
        assert predicted.total_bytes <= 1.1 * measured + 100_000
        assert sum(predicted.breakdown.values()) == predicted.total_bytes

    return run


@pytest.mark.parametrize("plan", _PLANS, ids=str)
@pytest.mark.parametrize("group_norm", [False, True], ids=["batch_norm", "group_norm"])
@pytest.mark.parametrize("method", list(Method))
def test_prediction_covers_the_allocator_peak(small_network, check, method, group_norm, plan):
    network = small_network(lite=method.uses_lite_residual, group_norm=group_norm)
    check(network, method, plan, 48)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("supernet", [PROXYLESS, MOBILENETV3])
def test_prediction_covers_random_subnets(supernet, check, seed):
    rng = random.Random(seed)
    spec = SupernetSpec.parse(supernet)
    method = rng.choice(list(Method))
    network = spec.network_config(sample_subnet(spec, rng), rng.choice([3, 40]))
    if method.uses_lite_residual:
        network = with_lite_residuals(network)
    batch_size = rng.choice([1, 4])
    plan = Plan(batch_size=batch_size, micro_batch_sizes=(rng.choice([1, batch_size]),))
    check(network, method, plan, rng.choice([48, 80, 96]))


@pytest.mark.parametrize(
    ("supernet", "method", "batch_size", "resolution", "num_classes", "image_size"),
    [
        ("ofa_proxyless_d234_e346_k357_w1.3", Method.BIAS, 3, 80, 1000, None),
        ("ofa_proxyless_d234_e346_k357_w1.3", Method.NORM_HEAD, 1, 97, 2, None),
        ("ofa_proxyless_d234_e346_k357_w1.3", Method.LITE_RESIDUAL, 3, 48, 102, None),
        ("ofa_mbv3_d234_e346_k357_w1.2", Method.HEAD, 1, 160, 1000, None),
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
    plan = Plan(batch_size=batch_size, micro_batch_sizes=(batch_size,))
    check(network, method, plan, resolution, image_size)


def test_a_smaller_micro_batch_takes_less(small_network):
    peaks = [
        peak_memory(
            small_network(),
            Method.LITE_RESIDUAL_BIAS,
            Plan(batch_size=8, micro_batch_sizes=(size,)),
            128,
        ).total_bytes
        for size in (8, 4, 2)
    ]
    assert peaks == sorted(peaks, reverse=True)


def test_methods_take_what_the_paper_orders(small_network):
    """Head below bias below lite residual + bias below norm + head below full (paper, table 2)."""
    order = [
        Method.HEAD,
        Method.BIAS,
        Method.LITE_RESIDUAL_BIAS,
        Method.NORM_HEAD,
        Method.FULL,
    ]
    peaks = [
        peak_memory(small_network(lite=m.uses_lite_residual), m, Plan(), 160).total_bytes
        for m in order
    ]
    assert peaks == sorted(peaks)
