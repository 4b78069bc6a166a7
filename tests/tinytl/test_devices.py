"""Training and evaluation where the network is: on a pretended GPU, and on a real one if any."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.pretended_gpu import GPU, pretended_gpu
from tinytl.description.method import Method
from tinytl.description.plan import Plan, Stretch
from tinytl.engine.gpu import repeatable_gpu
from tinytl.engine.network import build_network
from tinytl.engine.ops.convolution import convolve, input_gradient
from tinytl.engine.ops.upsampling import (
    upsample,
    upsample_backward,
    upsample_backward_matmul,
    upsample_matmul,
)
from tinytl.engine.optimizer import Adam
from tinytl.engine.step import Batch, run_step
from tinytl.measurement.measure import random_store
from tinytl.squares import Squaring
from tinytl.training.bundle import Bundle
from tinytl.training.checkpoint import MemoryCheckpoint
from tinytl.training.train import TrainSettings, correct_images, train

PROXYLESS = "ofa_proxyless_d234_e346_k357_w0.35"
MOBILENETV3 = "ofa_mbv3_d234_e346_k357_w1.0"
PLAN = Plan(
    batch_size=4,
    stretches=(
        Stretch(micro_batch_size=2, recomputes=True),
        Stretch(from_stage=2, micro_batch_size=4),
    ),
)
SMALL = replace(PLAN, optimizer_bits=8, trained_bits=16)


@pytest.fixture
def make_network(small_network):
    def make(supernet=PROXYLESS, method=Method.LITE_RESIDUAL_BIAS, *, group_norm=False):
        config = small_network(supernet, group_norm=group_norm, lite=method.uses_lite_residual)
        config = replace(config, dropout_rate=0.2)
        return build_network(config, method, generator=torch.Generator().manual_seed(0))

    return make


@pytest.mark.parametrize(
    ("supernet", "method", "group_norm", "plan"),
    [
        (PROXYLESS, Method.LITE_RESIDUAL_BIAS, False, SMALL),
        (MOBILENETV3, Method.FULL, True, SMALL),
        (MOBILENETV3, Method.NORM_HEAD, False, PLAN),
    ],
)
def test_all_of_a_training_is_where_its_network_is(
    make_network, tmp_path, supernet, method, group_norm, plan
):
    network = make_network(supernet, method, group_norm=group_norm)
    store = random_store(network.config.num_classes, 48, 1, plan, tmp_path)
    settings, checkpoint = TrainSettings(epochs=1), MemoryCheckpoint()
    options = {"resolution": 48, "plan": plan, "settings": settings, "checkpoint": checkpoint}
    with pretended_gpu():
        network.to(GPU)
        history = train(network, store, **options)
        assert {parameter.device for parameter in network.parameters()} == {GPU}
        assert train(network, store, **options) == history  # from its checkpoint
        val = store.split("val")
        right = correct_images(network, val, resolution=48, batch_size=3)
        classes = tuple(map(str, range(network.config.num_classes)))
        bundle = Bundle(
            network=network,
            classes=classes,
            resolution=48,
            image_size=64,
            squaring=Squaring(),
            plan=plan,
            report={},
        )
        assert bundle.predict(Image.new("RGB", (60, 50))).label in classes
    assert [report.train_loss for report in history] == [1 / plan.batch_size]  # what was answered
    assert np.array_equal(right, val.labels == 0)


def test_the_pretended_gpu_refuses_what_a_real_one_does():
    with pretended_gpu():
        here, there = torch.ones(2, 3), torch.ones(2, 3, device=GPU)
        maps = torch.ones(2, 8, 3, 3, device=GPU)
        scale = torch.ones(8, device=GPU)
        weight, state = torch.ones(3, device=GPU), Adam({"w": torch.ones(3, device=GPU)})
        state.begin_step(0.1)
        state.update("w", weight)
        assert torch.equal((there + there).cpu(), torch.zeros(2, 3))
        for mixed in (
            lambda: here + there,
            lambda: there.add_(here),
            lambda: F.conv2d(maps, torch.ones(8, 8, 1, 1)),
            lambda: torch._fused_adam_(
                [weight], [weight], [weight], [weight], [], [torch.ones(())], lr=0.1, beta1=0.9,
                beta2=0.9, weight_decay=0.0, eps=0.1, amsgrad=False, maximize=False,
            ),
        ):  # fmt: skip
            with pytest.raises(RuntimeError, match="two devices"):
                mixed()
        channels_last = maps.contiguous(memory_format=torch.channels_last)
        with pytest.raises(RuntimeError, match="channels last"):
            torch.ops.aten.native_group_norm(channels_last, scale, scale, 2, 8, 9, 2, 1e-5)
        with pytest.raises(RuntimeError, match="deterministic"):
            torch.ops.aten.upsample_bilinear2d_backward(maps, [3, 3], [2, 8, 2, 2], False)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


@pytest.mark.parametrize(
    ("size", "out_size"), [((3, 5), (6, 10)), ((2, 2), (5, 3)), ((1, 4), (2, 4)), ((4, 1), (9, 1))]
)
def test_the_gradient_of_upsampling_by_products(random_map, size, out_size):
    grad, x = random_map(2, 3, *out_size), random_map(2, 3, *size)
    expected = upsample_backward(grad, torch.Size(size))
    found = upsample_backward_matmul(grad, torch.Size(size))
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)
    y = F.interpolate(x, size=out_size, mode="bilinear", align_corners=False)
    assert torch.equal(upsample(x, torch.Size(out_size)), y)
    torch.testing.assert_close(upsample_matmul(x, torch.Size(out_size)), y)


@pytest.mark.parametrize(
    ("groups", "kernel", "stride"), [(1, 1, 1), (2, 3, 2), (4, 3, 1), (4, 5, 2)]
)
def test_convolutions_keep_the_layout_of_maps_on_a_gpu(groups, kernel, stride):
    with pretended_gpu():
        x = torch.ones(2, 4, 9, 9, device=GPU).contiguous(memory_format=torch.channels_last)
        weight = torch.ones(4, 4 // groups, kernel, kernel, device=GPU)
        y = convolve(x, weight, None, stride, groups)
        grad_x = input_gradient(y, weight, x.shape[2:], stride, groups)
        for found in (y, grad_x):
            assert found.is_contiguous(memory_format=torch.channels_last)
        assert grad_x.shape == x.shape


@pytest.fixture
def gpu(monkeypatch):
    """What repeatable_gpu sets of torch is as before afterwards."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    flags = (
        (torch.utils.deterministic, "fill_uninitialized_memory"),
        (torch.backends.cudnn, "benchmark"),
        (torch.backends.cudnn, "allow_tf32"),
        (torch.backends.cuda.matmul, "allow_tf32"),
    )
    before = [getattr(*flag) for flag in flags]
    yield repeatable_gpu()
    torch.use_deterministic_algorithms(False)
    for flag, value in zip(flags, before, strict=True):
        setattr(*flag, value)


def test_a_repeatable_gpu_has_no_shortcuts(gpu):
    assert gpu.type == "cuda"
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
@pytest.mark.parametrize("group_norm", [False, True])
def test_a_gpus_gradients_are_the_processors(make_network, gpu, group_norm):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (4, 3, 48, 48), generator=generator, dtype=torch.uint8)
    found = []
    for device in (torch.device("cpu"), gpu):
        network = make_network(MOBILENETV3, group_norm=group_norm).to(device)
        batch = Batch(images=images.to(device), labels=torch.arange(4, device=device))
        names = {parameter: name for name, parameter in network.trained_parameters().items()}
        gradients = {}
        run_step(network, batch, PLAN, gradients.__setitem__)
        found.append({names[parameter]: value.cpu() for parameter, value in gradients.items()})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-2, atol=1e-4)


@needs_cuda
@pytest.mark.parametrize("plan", [PLAN, SMALL], ids=["32 bits", "few bits"])
def test_a_training_goes_on_on_the_other_device(make_network, store, gpu, plan):
    """Twice on the GPU it is the same to the bit."""
    settings = TrainSettings(epochs=3)

    def run(device, checkpoint=None):
        network, saved = make_network().to(device), []
        checkpoint = MemoryCheckpoint(checkpoint)
        history = train(
            network,
            store,
            resolution=48,
            plan=plan,
            settings=settings,
            checkpoint=checkpoint,
            on_epoch=lambda report: saved.append(checkpoint.content),
        )
        return network.cpu().state_dict(), [report.train_loss for report in history], saved

    cpu = torch.device("cpu")
    _, losses, saved = run(cpu)
    state, gpu_losses, gpu_saved = run(gpu)
    again, same_losses, _ = run(gpu)
    assert same_losses == gpu_losses
    assert all(torch.equal(again[name], value) for name, value in state.items())
    for found in (gpu_losses, run(gpu, saved[0])[1], run(cpu, gpu_saved[0])[1]):
        assert found == pytest.approx(losses, rel=0.05)
