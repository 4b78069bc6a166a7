"""Inception-V3 (Szegedy et al., arXiv 1512.00567), without the auxiliary head, for 299 pixels.

The network that full fine-tuning is compared with in the TinyTL paper; batch norms use the
batch's statistics. Widths and the order of modules are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_BATCH_NORM_EPS = 1e-3
_DROPOUT_RATE = 0.5
_NUM_FEATURES = 2048


@dataclass(frozen=True)
class Conv:
    """A convolution without bias, its batch norm and ReLU. kernel: height, width."""

    out_channels: int
    kernel: tuple[int, int]
    stride: int = 1
    padded: bool = True


def _square(out_channels: int, size: int, stride: int = 1, *, padded: bool = True) -> Conv:
    return Conv(out_channels, (size, size), stride, padded)


class _Parallel(nn.Module):
    """The outputs of several branches over one input, concatenated along the channels."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W)."""
        return torch.cat([branch(x) for branch in self.branches], 1)


class InceptionV3(nn.Module):
    """The stem, modules at 35, 17 and 8 pixels (for images of 299), and the classifier."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _chain(
                3, _square(32, 3, 2, padded=False), _square(32, 3, padded=False), _square(64, 3)
            ),
            nn.MaxPool2d(3, 2),
            _chain(64, _square(80, 1), _square(192, 3, padded=False)),
            nn.MaxPool2d(3, 2),
        )
        self.modules_35 = nn.Sequential(
            _module_35(192, pooled=32), _module_35(256, pooled=64), _module_35(288, pooled=64)
        )
        self.modules_17 = nn.Sequential(
            _reduction_to_17(288), *(_module_17(width) for width in (128, 160, 160, 192))
        )
        self.modules_8 = nn.Sequential(_reduction_to_8(), _module_8(1280), _module_8(2048))
        self.dropout = nn.Dropout(_DROPOUT_RATE)
        self.classifier = nn.Linear(_NUM_FEATURES, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes) of normalized float images (N, 3, H, W)."""
        x = self.modules_8(self.modules_17(self.modules_35(self.stem(images))))
        logits: Tensor = self.classifier(self.dropout(x.mean((2, 3))))
        return logits


def _chain(in_channels: int, *convs: Conv) -> nn.Sequential:
    layers: list[nn.Module] = []
    for conv in convs:
        height, width = conv.kernel
        padding = (height // 2, width // 2) if conv.padded else (0, 0)
        layers += [
            nn.Conv2d(
                in_channels, conv.out_channels, conv.kernel, conv.stride, padding, bias=False
            ),
            nn.BatchNorm2d(conv.out_channels, eps=_BATCH_NORM_EPS),
            nn.ReLU(inplace=True),
        ]
        in_channels = conv.out_channels
    return nn.Sequential(*layers)


def _pooled(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.AvgPool2d(3, stride=1, padding=1), *_chain(in_channels, _square(out_channels, 1))
    )


def _module_35(in_channels: int, *, pooled: int) -> _Parallel:
    """Figure 5: the 5x5 of one branch stands beside two 3x3 of another."""
    return _Parallel(
        [
            _chain(in_channels, _square(64, 1)),
            _chain(in_channels, _square(48, 1), _square(64, 5)),
            _chain(in_channels, _square(64, 1), _square(96, 3), _square(96, 3)),
            _pooled(in_channels, pooled),
        ]
    )


def _reduction_to_17(in_channels: int) -> _Parallel:
    """Figure 10: strided convolutions beside a pooling."""
    return _Parallel(
        [
            _chain(in_channels, _square(384, 3, 2, padded=False)),
            _chain(in_channels, _square(64, 1), _square(96, 3), _square(96, 3, 2, padded=False)),
            nn.MaxPool2d(3, 2),
        ]
    )


def _module_17(width: int) -> _Parallel:
    """Figure 6 with n = 7: 1x7 and 7x1 convolutions; width is that of the inner ones."""
    row, column = Conv(width, (1, 7)), Conv(width, (7, 1))
    return _Parallel(
        [
            _chain(768, _square(192, 1)),
            _chain(768, _square(width, 1), row, Conv(192, (7, 1))),
            _chain(768, _square(width, 1), column, row, column, Conv(192, (1, 7))),
            _pooled(768, 192),
        ]
    )


def _reduction_to_8() -> _Parallel:
    return _Parallel(
        [
            _chain(768, _square(192, 1), _square(320, 3, 2, padded=False)),
            _chain(
                768,
                _square(192, 1),
                Conv(192, (1, 7)),
                Conv(192, (7, 1)),
                _square(192, 3, 2, padded=False),
            ),
            nn.MaxPool2d(3, 2),
        ]
    )


def _module_8(in_channels: int) -> _Parallel:
    """Figure 7: the last convolutions fork into 1x3 and 3x1."""

    def fork() -> _Parallel:
        return _Parallel([_chain(384, Conv(384, kernel)) for kernel in ((1, 3), (3, 1))])

    return _Parallel(
        [
            _chain(in_channels, _square(320, 1)),
            nn.Sequential(_chain(in_channels, _square(384, 1)), fork()),
            nn.Sequential(_chain(in_channels, _square(448, 1), _square(384, 3)), fork()),
            _pooled(in_channels, 192),
        ]
    )
