"""The families of supernets, as data: what each consists of, and what of it may be chosen.

The next family is an entry here. Ids are read here, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from search.errors import SpaceError
from tinytl.description.config import (
    GROUP_NORM,
    IMAGENET,
    Activation,
    BlockConfig,
    ConvConfig,
    Family,
    Normalization,
    NormConfig,
    Padding,
    make_divisible,
)

MIN_WIDTH, MAX_WIDTH = 0.1, 4.0
"""Of all layers of an OFA supernet, as a multiple of the published network's."""

Statistics = Literal["recalibrated", "matched"]
"""Where a subnet's batch norm statistics come from: "recalibrated" are its own on some training
images, as in ofa; "matched" ones make its maps on these images like the full network's, whose
statistics are the supernet's."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the features of a supernet usually need to fit a dataset.

    adapt_steps: of the supernet's adaptation, at most at adapt_learning_rate. train_passes: of the
    final training, images that it looks at, all epochs together, within least_epochs and
    most_epochs. starts_adapted: whether it goes on from the adapted weights; else from the
    supernet's own, with a head fitted to them. most_learning_rate: of it, where the method's own
    is higher.
    """

    adapt_steps: int
    adapt_learning_rate: float
    train_passes: int
    least_epochs: int
    most_epochs: int
    starts_adapted: bool
    most_learning_rate: float = math.inf

    def epochs(self, num_images: int) -> int:
        """Of the final training on so many images."""
        enough = math.ceil(self.train_passes / max(1, num_images))
        return min(max(self.least_epochs, enough), self.most_epochs)


_LONG = Recipe(
    adapt_steps=300,
    adapt_learning_rate=1e-2,
    train_passes=10_000,
    least_epochs=10,
    most_epochs=20,
    starts_adapted=True,
)
_SHORT = Recipe(
    adapt_steps=60,
    adapt_learning_rate=3e-3,
    train_passes=3_200,
    least_epochs=3,
    most_epochs=10,
    starts_adapted=False,
    most_learning_rate=2e-3,
)
"""For features that are good as they are: adapting them for all subnets takes more from a single
one than it gives."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Blocks of as many output channels: what each of them may be, and how many there may be.

    stride: of the first block. All choices rise.
    """

    out_channels: int
    stride: int
    activation: Activation
    squeeze_excite: bool
    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[int, ...]
    depths: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Design:
    """A supernet but for its name. width: of its layers, as a multiple of the family's.

    first_block is always there, and so is last, one block behind the stages, where there is one.
    resolutions: sides of square inputs in pixels that are tried where none are named, rising.
    """

    family: Family
    width: float
    first_conv: ConvConfig
    first_block: BlockConfig
    stages: tuple[Stage, ...]
    last: Stage | None
    final_expand: ConvConfig | None
    feature_mix: ConvConfig
    norm: NormConfig
    padding: Padding
    normalization: Normalization
    statistics: Statistics
    resolutions: tuple[int, ...]
    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class _Blocks:
    """A stage as published. kernel_size, depth: the full network's, where they are the stage's
    own."""

    width: int
    stride: int
    activation: Activation = "relu6"
    squeeze_excite: bool = False
    kernel_size: int = 0
    depth: int = 0


@dataclass(frozen=True, kw_only=True)
class _Family:
    """Widths are before the multiplier; but for stem and features where scales_ends is false."""

    shape: Family
    stages: tuple[_Blocks, ...]
    last: _Blocks | None
    norm: NormConfig
    stem_width: int = 32
    stem_activation: Activation = "relu6"
    first_width: int = 16
    first_activation: Activation = "relu6"
    expand_width: int | None = None
    feature_width: int = 1280
    feature_activation: Activation = "relu6"
    scales_ends: bool = True
    padding: Padding = "symmetric"
    normalization: Normalization = IMAGENET
    statistics: Statistics = "recalibrated"
    resolutions: tuple[int, ...] = (48, 64, 80, 96)
    recipe: Recipe = _LONG


_PROXYLESS = _Family(
    shape="proxyless",
    stages=(
        _Blocks(width=24, stride=2),
        _Blocks(width=40, stride=2),
        _Blocks(width=80, stride=2),
        _Blocks(width=96, stride=1),
        _Blocks(width=192, stride=2),
    ),
    last=_Blocks(width=320, stride=1),
    norm=NormConfig(eps=1e-3, momentum=0.1),
)
_MOBILENETV3 = _Family(
    shape="mobilenetv3",
    stages=(
        _Blocks(width=24, stride=2, activation="relu"),
        _Blocks(width=40, stride=2, activation="relu", squeeze_excite=True),
        _Blocks(width=80, stride=2, activation="h_swish"),
        _Blocks(width=112, stride=1, activation="h_swish", squeeze_excite=True),
        _Blocks(width=160, stride=2, activation="h_swish", squeeze_excite=True),
    ),
    last=None,
    norm=NormConfig(eps=1e-5, momentum=0.1),
    stem_width=16,
    stem_activation="h_swish",
    first_activation="relu",
    expand_width=960,
    feature_activation="h_swish",
)
_EFFICIENTNET_LITE = _Family(  # Tan and Le, arXiv 1905.11946, without squeeze-and-excite
    shape="proxyless",
    stages=(
        _Blocks(width=24, stride=2, kernel_size=3, depth=2),
        _Blocks(width=40, stride=2, kernel_size=5, depth=2),
        _Blocks(width=80, stride=2, kernel_size=3, depth=3),
        _Blocks(width=112, stride=1, kernel_size=5, depth=3),
        _Blocks(width=192, stride=2, kernel_size=5, depth=4),
    ),
    last=_Blocks(width=320, stride=1, kernel_size=3, depth=1),
    norm=NormConfig(eps=1e-3, momentum=0.01),
    scales_ends=False,
    padding="same",
    normalization=Normalization(mean=(127 / 255,) * 3, std=(128 / 255,) * 3),
    statistics="matched",
    resolutions=(64, 80, 96, 112, 128, 160, 192, 224),
    recipe=_SHORT,
)

_OFA = {"ofa_proxyless": _PROXYLESS, "ofa_mbv3": _MOBILENETV3}
_OFA_ID = re.compile(
    rf"(?P<base>(?P<family>{'|'.join(_OFA)})_d(?P<depths>\d+)_e(?P<expand_ratios>\d+)"
    r"_k(?P<kernel_sizes>\d+)_w(?P<width>\d+(?:\.\d+)?)(?P<group_norm>_gn)?)(?:_[A-Za-z0-9_.-]+)?"
)


@dataclass(frozen=True, kw_only=True)
class _Published:
    """A network of a family that has its own name. depth: a multiple of the stages' depths."""

    family: _Family
    width: float
    depth: float
    expand_ratios: tuple[int, ...]


_NAMED = {
    f"efficientnet_lite{number}": _Published(
        family=_EFFICIENTNET_LITE, width=width, depth=depth, expand_ratios=(5, 6)
    )
    for number, width, depth in ((0, 1.0, 1.0), (1, 1.0, 1.1), (2, 1.1, 1.2))
}
_NAMED_ID = re.compile(
    rf"(?P<base>(?P<name>{'|'.join(_NAMED)})(?P<group_norm>_gn)?)(?:_[A-Za-z0-9_.-]+)?"
)


def design_of(supernet_id: str) -> Design:
    """What an id says. Raises SpaceError, quoting it, where it names no design."""
    match = _read(supernet_id)
    if match.re is _OFA_ID:
        design = _ofa_design(supernet_id, match.groupdict())
    else:
        design = _named_design(_NAMED[match["name"]])
    return replace(design, norm=GROUP_NORM) if match["group_norm"] else design


def base_of(supernet_id: str) -> str:
    """The id without a suffix of one's own. Raises SpaceError as design_of does."""
    return _read(supernet_id)["base"]


def _read(supernet_id: str) -> re.Match[str]:
    match = _OFA_ID.fullmatch(supernet_id) or _NAMED_ID.fullmatch(supernet_id)
    if match is None:
        raise SpaceError(
            f"supernet id {supernet_id!r} does not name an architecture; it must look like "
            f"ofa_proxyless_d234_e346_k357_w1.3, ofa_mbv3_d234_e346_k357_w1.0_mydata or "
            f"efficientnet_lite0_mydata"
        )
    return match


def _ofa_design(supernet_id: str, given: Mapping[str, str]) -> Design:
    choices: dict[str, tuple[int, ...]] = {}
    for name in ("kernel_sizes", "expand_ratios", "depths"):
        values = tuple(int(digit) for digit in given[name])
        if list(values) != sorted(set(values)) or 0 in values:
            raise SpaceError(
                f"supernet id {supernet_id!r}: {name} must rise from at least 1, but are {values}"
            )
        choices[name] = values
    if any(size % 2 == 0 for size in choices["kernel_sizes"]):
        raise SpaceError(
            f"supernet id {supernet_id!r}: kernel sizes must be odd, "
            f"but are {choices['kernel_sizes']}"
        )
    if choices["expand_ratios"][0] < 2:
        raise SpaceError(
            f"supernet id {supernet_id!r}: expand ratios must be at least 2, "
            f"but are {choices['expand_ratios']}"
        )
    width = float(given["width"])
    if not MIN_WIDTH <= width <= MAX_WIDTH:
        raise SpaceError(
            f"supernet id {supernet_id!r}: width must be from {MIN_WIDTH:g} to "
            f"{MAX_WIDTH:g} but is {width}"
        )
    family = _OFA[given["family"]]
    stages = tuple(_stage(blocks, width, **choices) for blocks in family.stages)
    last = None
    if family.last is not None:
        last = _stage(family.last, width, **{**choices, "depths": (1,)})
    return _design(family, width, stages, last)


def _named_design(network: _Published) -> Design:
    """Depths from 1, and kernels from 3, to those of the full network."""

    def stage(blocks: _Blocks, depth: int) -> Stage:
        return _stage(
            blocks,
            network.width,
            kernel_sizes=tuple(range(3, blocks.kernel_size + 1, 2)),
            expand_ratios=network.expand_ratios,
            depths=tuple(range(1, depth + 1)),
        )

    family = network.family
    stages = tuple(
        stage(blocks, math.ceil(network.depth * blocks.depth)) for blocks in family.stages
    )
    last = None if family.last is None else stage(family.last, 1)
    return _design(family, network.width, stages, last)


def _design(
    family: _Family, width: float, stages: tuple[Stage, ...], last: Stage | None
) -> Design:
    ends = width if family.scales_ends else 1.0
    stem_channels = make_divisible(family.stem_width * ends)
    channels = make_divisible(family.first_width * width)
    first_block = BlockConfig(
        in_channels=stem_channels,
        mid_channels=stem_channels,
        out_channels=channels,
        kernel_size=3,
        stride=1,
        has_expansion=False,
        activation=family.first_activation,
        shortcut=family.shape == "mobilenetv3" and stem_channels == channels,
    )
    channels = (last or stages[-1]).out_channels
    final_expand = None
    if family.expand_width is not None:
        final_expand = _pointwise(
            channels, make_divisible(family.expand_width * width), family.feature_activation
        )
        channels = final_expand.out_channels
    return Design(
        family=family.shape,
        width=width,
        first_conv=ConvConfig(
            in_channels=3,
            out_channels=stem_channels,
            kernel_size=3,
            stride=2,
            activation=family.stem_activation,
        ),
        first_block=first_block,
        stages=stages,
        last=last,
        final_expand=final_expand,
        feature_mix=_pointwise(
            channels,
            make_divisible(family.feature_width * ends),
            family.feature_activation,
            has_norm=final_expand is None,  # else it works on pooled features
        ),
        norm=family.norm,
        padding=family.padding,
        normalization=family.normalization,
        statistics=family.statistics,
        resolutions=family.resolutions,
        recipe=family.recipe,
    )


def _stage(
    blocks: _Blocks,
    width: float,
    *,
    kernel_sizes: tuple[int, ...],
    expand_ratios: tuple[int, ...],
    depths: tuple[int, ...],
) -> Stage:
    return Stage(
        out_channels=make_divisible(blocks.width * width),
        stride=blocks.stride,
        activation=blocks.activation,
        squeeze_excite=blocks.squeeze_excite,
        kernel_sizes=kernel_sizes,
        expand_ratios=expand_ratios,
        depths=depths,
    )


def _pointwise(
    in_channels: int, out_channels: int, activation: Activation, *, has_norm: bool = True
) -> ConvConfig:
    return ConvConfig(
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=1,
        has_norm=has_norm,
        activation=activation,
    )
