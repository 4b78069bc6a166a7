"""Ways to pad as TensorFlow does ("same") where a convolution of stride 2 halves an even map:
bytes and time, side by side, at the five such layers of EfficientNet-Lite0; and Lite0 at 96 and 97
pixels.

    python -m benchmarks.memory.padding
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.memory.pace import engine_step
from tinytl.description.config import (
    BlockConfig,
    ConvConfig,
    NetworkConfig,
    Normalization,
    NormConfig,
    conv_pads,
    conv_size,
)
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.engine.network import Network, build_network
from tinytl.engine.ops.convolution import lay_out
from tinytl.measurement.measure import measure_in_fresh_process
from tinytl.measurement.tracker import allocator_peak_bytes, live_tensor_bytes

_BATCH_SIZE = 8
_STRIDE = 2
_TURNS = 21
_RESOLUTIONS = (96, 160, 224)
_STAGES = (
    (1, 1, 3, 16, 1),
    (2, 6, 3, 24, 2),
    (2, 6, 5, 40, 2),
    (3, 6, 3, 80, 2),
    (3, 6, 5, 112, 1),
    (4, 6, 5, 192, 2),
    (1, 6, 3, 320, 1),
)
"""Of Lite0: blocks, expand ratio, kernel size, channels, stride of the first block."""


def efficientnet_lite0(num_classes: int) -> NetworkConfig:
    """The network as published."""
    channels = 32
    stem = ConvConfig(
        in_channels=3, out_channels=channels, kernel_size=3, stride=2, activation="relu6"
    )
    blocks = []
    for num_blocks, expand_ratio, kernel_size, out_channels, first_stride in _STAGES:
        for stride in (first_stride, *[1] * (num_blocks - 1)):
            block = BlockConfig(
                in_channels=channels,
                mid_channels=channels * expand_ratio,
                out_channels=out_channels,
                kernel_size=kernel_size,
                stride=stride,
                has_expansion=expand_ratio != 1,
                activation="relu6",
                shortcut=stride == 1 and channels == out_channels,
            )
            blocks.append(block)
            channels = out_channels
    return NetworkConfig(
        family="proxyless",
        norm=NormConfig(eps=1e-3),
        first_conv=stem,
        blocks=tuple(blocks),
        final_expand=None,
        feature_mix=ConvConfig(
            in_channels=channels, out_channels=1280, kernel_size=1, activation="relu6"
        ),
        num_classes=num_classes,
        padding="same",
        normalization=Normalization(mean=(127 / 255,) * 3, std=(128 / 255,) * 3),
    )


Way = Callable[[Tensor, Tensor], Tensor]
"""A convolution of stride 2 of a map (N, C, H, W), depthwise but for the stem's."""


def _symmetric(x: Tensor, weight: Tensor) -> Tensor:
    """What it would cost with the padding of PyTorch: the bar, not an answer."""
    return _convolve(x, weight, weight.shape[-1] // 2)


def _laid_out(x: Tensor, weight: Tensor) -> Tensor:
    """A row and a column of zeros before the kernel: (k + 1) x (k + 1). The engine's way."""
    return _convolve(x, lay_out(weight, "same", _STRIDE, x.shape[2:]), weight.shape[-1] // 2)


def _in_a_corner(x: Tensor, weight: Tensor) -> Tensor:
    """The kernel in the corner of one of (k + 2) x (k + 2), whose padding is symmetric."""
    return _convolve(x, F.pad(weight, [2, 0, 2, 0]), weight.shape[-1] // 2 + 1)


def _padded(x: Tensor, weight: Tensor) -> Tensor:
    """A padded copy of the map."""
    before, after = conv_pads("same", weight.shape[-1], _STRIDE, x.shape[-1])
    return _convolve(F.pad(x, [before, after] * 2), weight, 0)


def _convolve(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(x, weight, None, _STRIDE, padding, 1, groups)


def _symmetric_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    return _transpose(grad, weight, weight.shape[-1] // 2, 1)


def _laid_out_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    return _transpose(grad, F.pad(weight, [1, 0, 1, 0]), weight.shape[-1] // 2, 0)


def _gradient_in_a_corner(grad: Tensor, weight: Tensor) -> Tensor:
    return _transpose(grad, F.pad(weight, [2, 0, 2, 0]), weight.shape[-1] // 2 + 1, 1)


def _cropped_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """Of the padded map, of which the padding is taken off again."""
    wide = _transpose(grad, weight, weight.shape[-1] // 2 - 1, 0)
    return wide[:, :, :-1, :-1].contiguous(memory_format=torch.channels_last)


def _transpose(grad: Tensor, weight: Tensor, padding: int, rest: int) -> Tensor:
    return F.conv_transpose2d(grad, weight, None, _STRIDE, padding, rest, grad.shape[1])


_FORWARD: dict[str, Way] = {
    "symmetric": _symmetric,
    "laid out": _laid_out,
    "in a corner": _in_a_corner,
    "padded map": _padded,
}
_BACKWARD: dict[str, Way] = {
    "symmetric": _symmetric_gradient,
    "laid out": _laid_out_gradient,
    "in a corner": _gradient_in_a_corner,
    "padded map": _cropped_gradient,
}


class Layer(NamedTuple):
    """A convolution that halves a map of size x size."""

    name: str
    weight: Tensor
    in_channels: int
    size: int


def halving_layers(network: NetworkConfig, resolution: int) -> list[Layer]:
    """The stem, and the depthwise convolutions of stride 2."""
    stem = network.first_conv
    weight = torch.randn(stem.out_channels, 3, stem.kernel_size, stem.kernel_size)
    layers = [Layer("stem", weight, 3, resolution)]
    size = conv_size(resolution, stem.kernel_size, stem.stride)
    for block in network.active_blocks:
        if block.stride == _STRIDE:
            mid, kernel_size = block.mid_channels, block.kernel_size
            weight = torch.randn(mid, 1, kernel_size, kernel_size)
            layers.append(
                Layer(f"depthwise {mid}, {kernel_size} x {kernel_size}", weight, mid, size)
            )
        size = conv_size(size, block.kernel_size, block.stride)
    return layers


def seconds_by_turns(works: Sequence[Callable[[], object]]) -> list[float]:
    """Median processor time of each, taken by turns in one thread."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(_TURNS):
        for work, seconds in zip(works, taken, strict=True):
            start = time.process_time()
            work()
            seconds.append(time.process_time() - start)
    return [median(seconds[1:]) for seconds in taken]


def compare_layers() -> None:
    """Print the ways forward and to the input's gradient (images have none)."""
    print(f"| px, batch of {_BATCH_SIZE} | layer | pass | {' | '.join(_FORWARD)} |")
    print(f"|{'---|' * (3 + len(_FORWARD))}")
    for resolution in _RESOLUTIONS:
        for layer in halving_layers(efficientnet_lite0(2), resolution):
            x = torch.randn(_BATCH_SIZE, layer.in_channels, layer.size, layer.size)
            x = x.contiguous(memory_format=torch.channels_last)
            y = _symmetric(x, layer.weight)
            _compare(f"{resolution} | {layer.name} | forward", _FORWARD, x, layer.weight)
            if layer.in_channels > 3:
                _compare(f"{resolution} | {layer.name} | gradient", _BACKWARD, y, layer.weight)


def _compare(name: str, ways: dict[str, Way], x: Tensor, weight: Tensor) -> None:
    bar, *equal = (way(x, weight) for way in ways.values())
    for other in equal[1:]:
        torch.testing.assert_close(other, equal[0], rtol=1e-3, atol=1e-3)
    del bar, equal, other
    works = [lambda way=way: way(x, weight) for way in ways.values()]
    seconds = seconds_by_turns(works)
    standing = live_tensor_bytes()
    peaks = [allocator_peak_bytes(work) - standing for work in works]
    cells = [
        f"{1e3 * taken:.2f} ms, {peak / 1e6:.2f} MB"
        for taken, peak in zip(seconds, peaks, strict=True)
    ]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def compare_networks() -> None:
    """Print what Lite0 takes to predict and to train its biases, on even maps and on odd ones."""
    same = efficientnet_lite0(10)
    cases = {
        "symmetric, 96 px": (replace(same, padding="symmetric"), 96),
        "same, 96 px": (same, 96),
        "same, 97 px": (same, 97),
    }
    plan = Plan.whole(_BATCH_SIZE)
    forwards, steps, forward_bytes, step_bytes = [], [], [], []
    for config, resolution in cases.values():
        standing = live_tensor_bytes()
        forwards.append(_forward(config, resolution))
        forward_bytes.append(allocator_peak_bytes(forwards[-1]) - standing)
        steps.append(
            engine_step(_bias_network(config), plan, resolution=resolution, num_classes=10)
        )
        measured = measure_in_fresh_process(config, Method.BIAS, plan, resolution)
        step_bytes.append(measured.measured_peak_bytes)
    forward_seconds, step_seconds = seconds_by_turns(forwards), seconds_by_turns(steps)
    print(f"| Lite0, batch of {_BATCH_SIZE} | forward | step of method bias |\n|---|---|---|")
    for number, name in enumerate(cases):
        forward = f"{1e3 * forward_seconds[number]:.1f} ms, {forward_bytes[number] / 1e6:.2f} MB"
        step = f"{1e3 * step_seconds[number]:.1f} ms, {step_bytes[number] / 1e6:.2f} MB"
        print(f"| {name} | {forward} | {step} |", flush=True)


def _bias_network(config: NetworkConfig) -> Network:
    return build_network(config, Method.BIAS, generator=torch.Generator().manual_seed(0))


def _forward(config: NetworkConfig, resolution: int) -> Callable[[], Tensor]:
    network = _bias_network(config)
    images = torch.zeros(_BATCH_SIZE, 3, resolution, resolution, dtype=torch.uint8)
    return lambda: network(images)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        compare_layers()
        compare_networks()
