"""Each operation of the device trainer against torch, and random numbers against numpy."""

import ctypes as ct
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.tinytl.native.device_library import (
    BFLOAT16,
    FLOAT,
    INT8,
    PACKED_FLOATS,
    AdamStep,
    AdamTensor,
    ConvolutionShape,
    Crop,
    DepthwiseShape,
    Epilogue,
    Matrix,
    MeanShape,
    Norm,
    Pooled,
    ResizeShape,
    Taps,
    aligned,
    pointer,
)
from tinytl.engine.ops.masks import clamp_
from tinytl.engine.ops.norms import group_norm, group_norm_backward
from tinytl.engine.ops.upsampling import upsample, upsample_backward
from tinytl.engine.optimizer import Adam
from tinytl.native.unroll.parameters import in_device_order
from tinytl.training.data import Augmentation, ImageSplit


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def random_map(*shape):
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def rows(x):
    """A channels-last map's own memory."""
    return x.permute(0, 2, 3, 1)


def scratch(num_floats=PACKED_FLOATS + (1 << 17)):
    return aligned(4 * num_floats).view(np.float32)


def assert_close(found, expected):
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def frozen(*shape):
    """int8 weights, scales, and the floats that they are."""
    weight = torch.randint(-127, 128, shape, dtype=torch.int8)
    scale = torch.rand(shape[0]) * 0.01 + 0.001
    return weight, scale, weight.float() * scale.view(-1, *[1] * (len(shape) - 1))


BITS = 2 ** torch.arange(8)
"""Of eight neighbouring values, the first is the lowest bit of a byte."""


def mask_of(y, most=math.inf):
    """Where a rectifier's output y (N, C, H, W), channels last, is within its ends: bytes."""
    is_open = ((y > 0) & (y < most)).permute(0, 2, 3, 1).reshape(-1, 8)
    return (is_open * BITS).sum(1).to(torch.uint8)


def masked(grad, mask):
    """grad (N, C, H, W), channels last, set to zero where the mask is closed, in place."""
    is_closed = (mask[:, None] & BITS) == 0
    grad.permute(0, 2, 3, 1).view(-1, 8)[is_closed] = 0
    return grad


@pytest.mark.parametrize(
    ("images", "side", "inputs", "outputs"),
    [(1, 7, 320, 1280), (2, 9, 40, 24), (3, 5, 1152, 192), (1, 28, 8, 8), (2, 3, 16, 72)],
)
def test_pointwise_convolutions(library, images, side, inputs, outputs):
    count = images * side**2
    weight, scale, wide = frozen(outputs, inputs)
    x, bias = random_map(images, inputs, side, side), torch.randn(outputs)
    addend = random_map(images, outputs, side, side)
    expected = F.conv2d(x, wide[:, :, None, None], bias) + addend
    expected = clamp_(expected.contiguous(memory_format=torch.channels_last), "relu6")
    y, bits = torch.empty_like(expected), torch.zeros(expected.numel() // 8, dtype=torch.uint8)
    epilogue = Epilogue(pointer(bias), pointer(addend), 6.0, pointer(bits), None, None)
    matrix = Matrix(pointer(weight), INT8, 1, inputs, pointer(scale))
    multiply(library, count, outputs, inputs, x, matrix, y, epilogue)
    assert_close(y, expected)
    assert torch.equal(bits, mask_of(y, most=6))

    grad, mask = (
        random_map(images, outputs, side, side),
        torch.randint(0, 256, (count * inputs // 8,)),
    )
    mask, sums = mask.to(torch.uint8), torch.ones(inputs)
    expected = F.conv_transpose2d(grad, wide[:, :, None, None])
    expected = masked(expected.contiguous(memory_format=torch.channels_last), mask)
    grad_x = torch.empty_like(expected)
    epilogue = Epilogue(None, None, 0.0, None, pointer(mask), pointer(sums))
    matrix = Matrix(pointer(weight), INT8, 0, inputs, pointer(scale))
    multiply(library, count, inputs, outputs, grad, matrix, grad_x, epilogue)
    assert_close(grad_x, expected)
    assert_close(sums, 1 + expected.sum((0, 2, 3)))


def multiply(library, count, columns, inner, a, matrix, y, epilogue):
    library.call(
        "multiply",
        *(count, columns, inner, a, ct.c_size_t(inner), ct.c_size_t(1), matrix, y),
        *(ct.c_size_t(columns), epilogue, scratch()),
    )


@pytest.mark.parametrize("width", [8, 24, 256])
def test_a_pooled_convolution_is_the_same_bits_as_one_after_the_other(library, width):
    images, side, inputs, outputs = 2, 5, 320, 72
    places = side**2
    weight, scale, _ = frozen(outputs, inputs)
    x, bias = torch.randn(images, places, inputs), torch.randn(outputs)
    y = torch.empty(images, places, outputs)
    bits = [torch.zeros(y.numel() // 8, dtype=torch.uint8) for _ in range(2)]
    epilogue = Epilogue(pointer(bias), None, 6.0, pointer(bits[0]), None, None)
    matrix = Matrix(pointer(weight), INT8, 1, inputs, pointer(scale))
    multiply(library, images * places, outputs, inputs, x, matrix, y, epilogue)
    expected, found = torch.empty(images, outputs), torch.empty(images, outputs)
    library.call("mean", images, places, outputs, y, expected, ct.c_size_t(outputs))
    assert_close(expected, y.mean(1))
    shape = Pooled(images, places, inputs, outputs, width, pointer(weight), pointer(scale))
    epilogue = Epilogue(pointer(bias), None, 6.0, pointer(bits[1]), None, None)
    library.call("pooled_forward", shape, x, epilogue, found, scratch())
    assert torch.equal(found, expected)
    assert torch.equal(*bits)

    grad, sums = torch.randn(images, outputs), [torch.ones(outputs) for _ in range(2)]
    mean_shape = MeanShape(images, places, outputs, outputs)
    library.call("mean_backward", mean_shape, grad, bits[0], sums[0], 0, y)
    grad_x = [torch.empty_like(x) for _ in range(2)]
    matrix = Matrix(pointer(weight), INT8, 0, inputs, pointer(scale))
    nothing = Epilogue(None, None, 0.0, None, None, None)
    multiply(library, images * places, inputs, outputs, y, matrix, grad_x[0], nothing)
    library.call("pooled_backward", shape, grad, bits[1], sums[1], grad_x[1], scratch())
    assert torch.equal(*grad_x)
    assert torch.equal(*sums)


PADDINGS = ["symmetric", "same"]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize(("images", "side", "channels"), [(2, 14, 24), (1, 7, 40), (3, 1, 8)])
def test_depthwise_convolutions(library, images, side, channels, kernel, stride, padding):
    """same: as TensorFlow pads, less above and left where the stride is 2 and the side even."""
    out = -(-side // stride)
    before = kernel // 2
    if padding == "same":
        before = max(0, (out - 1) * stride + kernel - side) // 2
    after = max(0, (out - 1) * stride + kernel - side - before)
    weight, scale, wide = frozen(channels, 1, kernel, kernel)
    taps = rows(weight)[:, :, :, 0].permute(1, 2, 0).contiguous()
    x, bias = random_map(images, channels, side, side), torch.randn(channels)

    def convolve(x):
        padded = F.pad(x, (before, after, before, after))
        return F.conv2d(padded, wide, bias, stride, groups=channels)[:, :, :out, :out]

    expected = clamp_(convolve(x).contiguous(memory_format=torch.channels_last), "relu")
    y, bits = torch.empty_like(expected), torch.zeros(expected.numel() // 8, dtype=torch.uint8)
    shape = DepthwiseShape(images, channels, side, out, kernel, stride, before, before)
    epilogue = Epilogue(pointer(bias), None, math.inf, pointer(bits), None, None)
    tap_values = Taps(pointer(taps), pointer(scale))
    library.call("depthwise_forward", shape, x, tap_values, y, epilogue, scratch())
    assert_close(y, expected)
    assert torch.equal(bits, mask_of(y))

    leaf = x.clone().requires_grad_()
    grad = random_map(images, channels, out, out)
    mask = torch.randint(0, 256, (x.numel() // 8,), dtype=torch.uint8)
    (expected,) = torch.autograd.grad(convolve(leaf), leaf, grad)
    expected = masked(expected.contiguous(memory_format=torch.channels_last), mask)
    grad_x, sums = torch.empty_like(expected), torch.ones(channels)
    epilogue = Epilogue(None, None, 0.0, None, pointer(mask), pointer(sums))
    library.call("depthwise_backward", shape, grad, tap_values, grad_x, epilogue, scratch())
    assert_close(grad_x, expected)
    assert_close(sums, 1 + expected.sum((0, 2, 3)))


@pytest.mark.parametrize("kind", [FLOAT, BFLOAT16])
@pytest.mark.parametrize(
    ("images", "side", "inputs", "outputs", "kernel", "stride", "groups"),
    [
        (2, 7, 16, 24, 5, 1, 2),
        (3, 8, 24, 16, 3, 2, 1),
        (2, 3, 40, 11, 1, 1, 1),
        (1, 1, 8, 8, 5, 1, 2),
    ],
)
def test_trained_convolutions(
    library, images, side, inputs, outputs, kernel, stride, groups, kind
):
    pad, rest = kernel // 2, (side + 2 * (kernel // 2) - kernel) // stride + 1
    weight = torch.randn(outputs, inputs // groups, kernel, kernel)
    if kind == BFLOAT16:
        weight = weight.to(torch.bfloat16)
    wide, x = weight.float().requires_grad_(), random_map(images, inputs, side, side)
    leaf = x.clone().requires_grad_()
    expected = F.conv2d(leaf, wide, None, stride, pad, 1, groups)
    grad = random_map(*expected.shape)
    expected_grads = torch.autograd.grad(expected, (leaf, wide), grad)
    held = in_device_order(weight)
    length = inputs // groups * kernel**2
    shape = ConvolutionShape(
        images, inputs, outputs, groups, side, rest, kernel, stride, pad, pad, 5
    )
    matrix = Matrix(pointer(held), kind, 1, length, None)
    y = torch.empty_like(grad)
    library.call("convolve", shape, x, None, matrix, y, Epilogue(), scratch())
    assert_close(y, expected.detach())
    grad_x = torch.empty_like(x)
    library.call("convolution_input_gradient", shape, grad, matrix, grad_x, scratch())
    assert_close(grad_x, expected_grads[0])
    grad_weight = torch.ones(outputs, kernel, kernel, inputs // groups)
    library.call("convolution_weight_gradient", shape, grad, x, grad_weight, scratch())
    assert_close(grad_weight, 1 + in_device_order(expected_grads[1]))


@pytest.mark.parametrize("limit", [0.0, math.inf])
def test_group_norm(library, limit):
    x, gain, bias = random_map(3, 24, 9, 9), torch.randn(24), torch.randn(24)
    expected, statistics = group_norm(x, gain, bias, 3, 1e-5)
    norm = Norm(3, 81, 24, limit, 1e-5, pointer(gain), pointer(bias))
    y, found = torch.empty_like(x), torch.empty(3, 3, 2)
    library.call("group_norm", norm, x, y, found)
    assert_close(y, expected.relu() if limit else expected)
    assert_close(found, torch.stack(statistics, 2))
    grad = random_map(3, 24, 9, 9)
    masked = grad * (expected > 0) if limit else grad
    exact = group_norm_backward(
        masked.contiguous(memory_format=torch.channels_last), x, gain, statistics
    )
    sums = torch.ones(2, 24)
    library.call("group_norm_backward", norm, x, found, grad, sums[0], sums[1])
    for value, reference in zip((grad, sums[0] - 1, sums[1] - 1), exact, strict=True):
        assert (value - reference).abs().max() <= 2e-5 * reference.abs().max()


@pytest.mark.parametrize(("small", "large"), [(3, 7), (4, 8), (1, 5), (6, 6)])
def test_upsampling(library, small, large):
    x, y = random_map(2, 16, small, small), random_map(2, 16, large, large)
    expected = y + upsample(x, torch.Size((large, large)))
    shape, found = ResizeShape(2, 16, small, large), y.clone()
    library.call("upsample_add", shape, x, found)
    assert_close(found, expected)
    grad_x = torch.empty_like(x)
    library.call("upsample_backward", shape, y, grad_x)
    assert_close(grad_x, upsample_backward(y, torch.Size((small, small))))


@pytest.mark.parametrize(("side", "cell"), [(8, 2), (7, 2), (5, 5)])
def test_average_pooling(library, side, cell):
    x = random_map(2, 8, side, side)
    leaf = x.clone().requires_grad_()
    expected = F.avg_pool2d(leaf, cell)
    shape = ResizeShape(2, 8, side, side // cell)
    y = torch.empty(expected.shape).contiguous(memory_format=torch.channels_last)
    library.call("average_pool", shape, cell, x, y)
    assert_close(y, expected.detach())
    grad, grad_x = random_map(*expected.shape), x.clone()
    library.call("average_pool_backward", shape, cell, grad, grad_x)
    assert_close(grad_x, x + torch.autograd.grad(expected, leaf, grad)[0])


def test_means_and_what_they_give_back(library):
    x, grad = random_map(2, 16, 5, 5), torch.randn(2, 16)
    y = torch.empty(2, 16)
    library.call("mean", 2, 25, 16, x, y, ct.c_size_t(16))
    assert_close(y, x.mean((2, 3)))
    bits = torch.randint(0, 256, (2 * 25 * 16 // 8,), dtype=torch.uint8)
    spread = (grad[:, :, None, None] / 25).expand(2, 16, 5, 5)
    expected = masked(spread.contiguous(memory_format=torch.channels_last), bits)
    grad_x, sums = x.clone(), torch.zeros(16)
    shape = MeanShape(2, 25, 16, 16)
    library.call("mean_backward", shape, grad, bits, sums, 1, grad_x)
    assert_close(grad_x, x + expected)
    assert_close(sums, expected.sum((0, 2, 3)))
    sums = torch.zeros(16)
    library.call("add_columns", ct.c_size_t(50), 16, x, bits, sums)
    assert_close(sums, masked(x.clone(), bits).sum((0, 2, 3)))


def test_hard_swish_and_gates(library):
    x = random_map(2, 16, 5, 5) * 3
    leaf, gate = x.clone().requires_grad_(), (torch.randn(2, 16) * 3).requires_grad_()
    y, grad = torch.empty_like(x), random_map(2, 16, 5, 5)
    library.call("hard_swish", ct.c_size_t(x.numel()), x, y)
    assert_close(y, F.hardswish(x))
    found = grad.clone()
    library.call("hard_swish_backward", ct.c_size_t(x.numel()), x, found)
    assert_close(found, torch.autograd.grad(F.hardswish(leaf), leaf, grad)[0])

    expected = leaf * F.hardsigmoid(gate)[:, :, None, None]
    exact = torch.autograd.grad(expected, (leaf, gate), grad)
    held = gate.detach()
    library.call("open_gate", 2, 25, 16, held, x, y)
    assert_close(y, expected.detach())
    found, grad_gate = grad.clone(), torch.empty(2, 16)
    library.call("open_gate_backward", 2, 25, 16, held, x, found, grad_gate)
    assert_close(found, exact[0])
    assert_close(grad_gate, exact[1])


@pytest.mark.parametrize(("bits", "count"), [(32, 300), (8, 5000), (8, 70001)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adam_is_that_of_the_engine(library, bits, count, dtype):
    """Noise and all: what differs is a rounding, by which a code is the neighbouring one."""
    values = (torch.randn(count) * 0.1).to(dtype)
    engine = Adam({"a": torch.zeros(1), "w": values.clone()}, state_bits=bits, seed=11)
    held, expected = values.clone(), engine._parameters["w"]
    state = engine.state_tensors()
    shapes = [state[f"{kind}_moment.w"] for kind in ("first", "second")]
    moments = [torch.zeros_like(moment) for moment in shapes]
    scales = [torch.zeros(-(-count // 256)) if bits == 8 else None for _ in range(2)]
    coded = shapes[0].dtype == torch.int8
    assert coded == (bits == 8)
    tensor = AdamTensor(
        *(count, 1, coded, dtype == torch.bfloat16, pointer(held), *map(pointer, moments)),
        *map(pointer, scales),
    )
    for number in range(1, 5):
        grad = torch.randn(count) * torch.logspace(-6, 0, count)
        engine.begin_step(1e-3)
        engine.update("a", torch.zeros(1))
        engine.update("w", grad.clone())
        step = library.call(
            "adam_step", 1e-3, ct.c_uint32(11), ct.c_uint32(number), returns=AdamStep
        )
        library.call("adam_update", step, tensor, grad)
    off = (held.float() - expected.float()).abs()
    assert (off > 2e-6).float().mean() < 2e-3
    for moment, exact in zip(moments, shapes, strict=True):
        if coded:
            assert (moment != exact).float().mean() < 2e-3
        else:
            assert_close(moment, exact)


def test_cross_entropy(library):
    logits = torch.randn(5, 7)
    labels = torch.tensor([0, 6, 3, 3, 1])
    leaf = logits[:, :6].clone().requires_grad_()
    labels = labels.clamp(max=5)
    losses = F.cross_entropy(leaf, labels, reduction="none", label_smoothing=0.1)
    (expected,) = torch.autograd.grad(losses.sum() / 9, leaf)

    class Loss(ct.Structure):
        _fields_ = (
            *((name, ct.c_int) for name in ("images", "classes", "pitch")),
            ("smoothing", ct.c_float),
            ("batch_size", ct.c_int),
        )

    loss = library.call(
        "cross_entropy", Loss(5, 6, 7, 0.1, 9), labels.to(torch.int16), logits,
        returns=ct.c_double,
    )  # fmt: skip
    assert loss == pytest.approx(losses.sum().item(), rel=1e-6)
    assert_close(logits[:, :6], expected)
    assert (logits[:, 6] == 0).all()


@pytest.mark.parametrize(
    ("name", "reference", "low", "high"),
    [("exp", math.exp, -80, 80), ("log", math.log, 1e-12, 1e12), ("cos", math.cos, 0, math.pi)],
)
def test_elementary_functions(library, name, reference, low, high):
    values = np.geomspace(low, high, 999) if name == "log" else np.linspace(low, high, 999)
    for value in values:
        found = library.call(f"same_{name}", float(value), returns=ct.c_double)
        assert found == pytest.approx(reference(value), rel=2e-15, abs=2e-15)


@pytest.mark.parametrize(
    "entropy", [[0], [7, 3], [1, 2, 3], [4294967295, 0, 9, 1], [5, 6, 7, 8, 9]]
)
def test_random_numbers_are_those_of_numpy(library, entropy):
    rng, generator = aligned(64), np.random.default_rng(entropy)
    words = np.array(entropy, np.uint32)
    library.call("pcg64_seed", rng, words, len(entropy))
    for _ in range(50):
        assert library.call("pcg64_random", rng, returns=ct.c_double) == generator.random()
        below = library.call("pcg64_below", rng, 77, returns=ct.c_uint32)
        assert below == generator.integers(77)
    order = np.empty(100, np.uint32)
    library.call("pcg64_permutation", rng, order, 100)
    assert np.array_equal(order, generator.permutation(100))


@pytest.mark.parametrize(("stored", "resolution"), [(40, 32), (48, 48), (37, 64), (256, 33)])
def test_views_of_images_are_those_of_the_engine(library, stored, resolution):
    """Pixel for pixel: crops, antialiased resizing, mirror images."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 3, stored, stored), dtype=np.uint8)
    split = ImageSplit(pixels, np.zeros(6, np.int64))
    expected = split.augmented_batch(range(6), resolution, Augmentation(), [3, 1]).numpy()
    work, state, found = aligned(1 << 20), aligned(64), aligned(3 * resolution**2)
    for index in range(6):
        stored_pixels = np.ascontiguousarray(pixels[index].transpose(1, 2, 0))
        library.call("pcg64_seed", state, np.array([3, 1, index], np.uint32), 3)
        crop = library.call("random_crop", state, stored, 0.5, returns=Crop)
        mirrored = library.call("pcg64_random", state, returns=ct.c_double) < 0.5
        resize(library, stored_pixels, crop, mirrored, resolution, work, found)
        assert np.array_equal(_as_planes(found, resolution), expected[index])
    whole = Crop(0, 0, stored, stored)
    resize(library, stored_pixels, whole, False, resolution, work, found)
    assert np.array_equal(_as_planes(found, resolution), split.batch([5], resolution)[0].numpy())


def resize(library, pixels, crop, mirrored, resolution, work, found):
    library._library.resize(
        ct.c_void_p(pointer(pixels)), len(pixels), crop, int(mirrored), resolution,
        ct.c_void_p(pointer(work)), ct.c_void_p(pointer(found)),
    )  # fmt: skip


def _as_planes(found, resolution):
    return found.reshape(resolution, resolution, 3).transpose(2, 0, 1)
