"""What an OFA supernet can be cut to, in plain Python (Once-for-All, arXiv 1908.09791).

No torch here: the web process prices subnets without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from search.errors import SpaceError
from tinytl.config import (
    GROUP_NORM,
    Activation,
    BlockConfig,
    ConvConfig,
    Family,
    NetworkConfig,
    NormConfig,
    make_divisible,
)

NUM_ELASTIC_STAGES = 5
"""Stages whose depth is chosen. Proxyless has a sixth of one block, which is always there."""

MIN_WIDTH, MAX_WIDTH = 0.1, 4.0
"""Of all layers, as a multiple of the published network's."""


@dataclass(frozen=True, kw_only=True)
class Subnet:
    """A choice of subnet: one entry per dynamic block at full depth, and each stage's depth.

    kernel_sizes and expand_ratios have 21 entries for Proxyless and 20 for MobileNetV3 (with
    stages of at most 4 blocks); depths has one per elastic stage. Entries of blocks beyond
    their stage's depth mean nothing; SupernetSpec.canonical fixes them.
    """

    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[int, ...]
    depths: tuple[int, ...]


class _Stage(NamedTuple):
    width: int
    stride: int
    activation: Activation
    squeeze_excite: bool


# Width before the multiplier, stride of the first block, activation, squeeze-and-excite.
_STAGES: dict[Family, tuple[_Stage, ...]] = {
    "proxyless": (
        _Stage(24, 2, "relu6", False),
        _Stage(40, 2, "relu6", False),
        _Stage(80, 2, "relu6", False),
        _Stage(96, 1, "relu6", False),
        _Stage(192, 2, "relu6", False),
        _Stage(320, 1, "relu6", False),
    ),
    "mobilenetv3": (
        _Stage(24, 2, "relu", False),
        _Stage(40, 2, "relu", True),
        _Stage(80, 2, "h_swish", False),
        _Stage(112, 1, "h_swish", True),
        _Stage(160, 2, "h_swish", True),
    ),
}
_BATCH_NORMS: dict[Family, NormConfig] = {
    "proxyless": NormConfig(eps=1e-3, momentum=0.1),
    "mobilenetv3": NormConfig(eps=1e-5, momentum=0.1),
}
_FAMILY_NAMES: dict[str, Family] = {"proxyless": "proxyless", "mbv3": "mobilenetv3"}
_ID = re.compile(
    r"ofa_(?P<family>proxyless|mbv3)_d(?P<depths>\d+)_e(?P<expand_ratios>\d+)"
    r"_k(?P<kernel_sizes>\d+)_w(?P<width>\d+(?:\.\d+)?)(?P<group_norm>_gn)?(?:_[A-Za-z0-9_.-]+)?"
)


@dataclass(frozen=True, kw_only=True)
class SupernetSpec:
    """The architecture of an OFA supernet: which choices its blocks and stages offer."""

    id: str
    family: Family
    width: float
    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[int, ...]
    depths: tuple[int, ...]
    norm: NormConfig

    @staticmethod
    def parse(supernet_id: str) -> SupernetSpec:
        """Read an id such as ofa_proxyless_d234_e346_k357_w1.3, any suffix after it allowed.

        The suffix _gn, alone or with another after it, says that the norm is group norm with
        weight standardization; else it is batch norm.
        """
        match = _ID.fullmatch(supernet_id)
        if match is None:
            raise SpaceError(
                f"supernet id {supernet_id!r} does not name an architecture; it must look like "
                f"ofa_proxyless_d234_e346_k357_w1.3 or ofa_mbv3_d234_e346_k357_w1.0_mydata"
            )
        family = _FAMILY_NAMES[match["family"]]
        choices: dict[str, tuple[int, ...]] = {}
        for name in ("kernel_sizes", "expand_ratios", "depths"):
            values = tuple(int(digit) for digit in match[name])
            if list(values) != sorted(set(values)) or 0 in values:
                raise SpaceError(
                    f"supernet id {supernet_id!r}: {name} must rise from at least 1, "
                    f"but are {values}"
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
        width = float(match["width"])
        if not MIN_WIDTH <= width <= MAX_WIDTH:
            raise SpaceError(
                f"supernet id {supernet_id!r}: width must be from {MIN_WIDTH:g} to "
                f"{MAX_WIDTH:g} but is {width}"
            )
        return SupernetSpec(
            id=supernet_id,
            family=family,
            width=width,
            norm=GROUP_NORM if match["group_norm"] else _BATCH_NORMS[family],
            **choices,
        )

    @property
    def max_depth(self) -> int:
        return self.depths[-1]

    @property
    def num_dynamic_blocks(self) -> int:
        return NUM_ELASTIC_STAGES * self.max_depth + (self.family == "proxyless")

    @property
    def largest(self) -> Subnet:
        return self.uniform(self.kernel_sizes[-1], self.expand_ratios[-1], self.depths[-1])

    @property
    def smallest(self) -> Subnet:
        return self.uniform(self.kernel_sizes[0], self.expand_ratios[0], self.depths[0])

    def uniform(self, kernel_size: int, expand_ratio: int, depth: int) -> Subnet:
        """The canonical subnet with the same choice everywhere."""
        return self.canonical(
            Subnet(
                kernel_sizes=(kernel_size,) * self.num_dynamic_blocks,
                expand_ratios=(expand_ratio,) * self.num_dynamic_blocks,
                depths=(depth,) * NUM_ELASTIC_STAGES,
            )
        )

    @property
    def uniform_subnets(self) -> list[Subnet]:
        """The subnet of each kernel size, expand ratio and depth that is the same everywhere."""
        return [
            self.uniform(kernel_size, expand_ratio, depth)
            for kernel_size in self.kernel_sizes
            for expand_ratio in self.expand_ratios
            for depth in self.depths
        ]

    def check(self, subnet: Subnet) -> None:
        """Raise SpaceError, quoting the value, where the subnet is not one of this supernet."""
        if self._is_plainly_right(subnet):
            return
        counts = {"depths": NUM_ELASTIC_STAGES}
        for name in ("kernel_sizes", "expand_ratios", "depths"):
            values: tuple[int, ...] = getattr(subnet, name)
            choices: tuple[int, ...] = getattr(self, name)
            num_expected = counts.get(name, self.num_dynamic_blocks)
            if len(values) != num_expected:
                raise SpaceError(
                    f"{name} must have {num_expected} entries for {self.id} but has {len(values)}"
                )
            for index, value in enumerate(values):
                if type(value) is not int or value not in choices:
                    raise SpaceError(
                        f"{name}[{index}] must be one of {list(choices)} but got {value!r}"
                    )

    def _is_plainly_right(self, subnet: Subnet) -> bool:
        """check's question, with no answer to what is wrong: it is asked for every price."""
        kernel_sizes, expand_ratios, depths, num_blocks = self._allowed
        return (
            len(subnet.kernel_sizes) == len(subnet.expand_ratios) == num_blocks
            and len(subnet.depths) == NUM_ELASTIC_STAGES
            and kernel_sizes.issuperset(subnet.kernel_sizes)
            and expand_ratios.issuperset(subnet.expand_ratios)
            and depths.issuperset(subnet.depths)
            and {*map(type, subnet.kernel_sizes + subnet.expand_ratios + subnet.depths)} == {int}
        )

    @cached_property
    def _allowed(self) -> tuple[frozenset[int], frozenset[int], frozenset[int], int]:
        choices = (self.kernel_sizes, self.expand_ratios, self.depths)
        kernel_sizes, expand_ratios, depths = map(frozenset, choices)
        return kernel_sizes, expand_ratios, depths, self.num_dynamic_blocks

    def canonical(self, subnet: Subnet) -> Subnet:
        """The same network with entries of absent blocks set to the smallest choices."""
        self.check(subnet)
        present = {index - 1 for stage in self.active_blocks(subnet) for index in stage}
        blocks = range(self.num_dynamic_blocks)
        return Subnet(
            kernel_sizes=tuple(
                subnet.kernel_sizes[i] if i in present else self.kernel_sizes[0] for i in blocks
            ),
            expand_ratios=tuple(
                subnet.expand_ratios[i] if i in present else self.expand_ratios[0] for i in blocks
            ),
            depths=subnet.depths,
        )

    def active_blocks(self, subnet: Subnet) -> Iterator[range]:
        """Indices of a subnet's dynamic blocks in the full-depth network, stage by stage.

        Block 0 of the network is static, so dynamic block i has index i + 1.
        """
        for stage, depth in enumerate(subnet.depths):
            first = 1 + stage * self.max_depth
            yield range(first, first + depth)
        if self.family == "proxyless":
            last = 1 + NUM_ELASTIC_STAGES * self.max_depth
            yield range(last, last + 1)

    def network_config(
        self, subnet: Subnet, num_classes: int, *, dropout_rate: float = 0.0
    ) -> NetworkConfig:
        """The static network that the subnet is, without lite residual modules.

        Equal to tinytl.ofa_format.from_ofa of ofa's own get_active_net_config.
        """
        self.check(subnet)
        layers = self._layers
        blocks = [layers.first_block]
        choices = list(zip(subnet.kernel_sizes, subnet.expand_ratios, strict=True))
        for (first, others), indices in zip(
            layers.stages, self.active_blocks(subnet), strict=True
        ):
            start = indices.start - 1
            blocks.append(first[choices[start]])
            blocks += [others[choice] for choice in choices[start + 1 : indices.stop - 1]]
        return NetworkConfig(
            family=self.family,
            norm=self.norm,
            first_conv=layers.first_conv,
            blocks=tuple(blocks),
            final_expand=layers.final_expand,
            feature_mix=layers.feature_mix,
            num_classes=num_classes,
            dropout_rate=dropout_rate,
        )

    @cached_property
    def _layers(self) -> _Layers:
        return _layers(self.family, self.width, self.kernel_sizes, self.expand_ratios)


_BlockChoices = dict[tuple[int, int], BlockConfig]
"""A block for each kernel size and expand ratio."""


class _Layers(NamedTuple):
    """What subnets consist of. stages: the choices for the first block of each, and for others."""

    first_conv: ConvConfig
    first_block: BlockConfig
    stages: tuple[tuple[_BlockChoices, _BlockChoices], ...]
    final_expand: ConvConfig | None
    feature_mix: ConvConfig


@lru_cache(maxsize=64)
def _layers(
    family: Family, width: float, kernel_sizes: tuple[int, ...], expand_ratios: tuple[int, ...]
) -> _Layers:
    """The same objects for equal supernets: costs of blocks are found by identity."""

    def scaled(channels: int) -> int:
        return make_divisible(channels * width)

    mobilenetv3 = family == "mobilenetv3"
    stem_channels, channels = scaled(16 if mobilenetv3 else 32), scaled(16)
    first_block = BlockConfig(
        in_channels=stem_channels,
        mid_channels=stem_channels,
        out_channels=channels,
        kernel_size=3,
        stride=1,
        has_expansion=False,
        activation="relu" if mobilenetv3 else "relu6",
        shortcut=mobilenetv3 and stem_channels == channels,
    )
    stages = []
    for stage in _STAGES[family]:
        out_channels = scaled(stage.width)
        first, others = (
            {
                (kernel_size, expand_ratio): _block(
                    stage, in_channels, out_channels, kernel_size, expand_ratio, stride
                )
                for kernel_size in kernel_sizes
                for expand_ratio in expand_ratios
            }
            for in_channels, stride in ((channels, stage.stride), (out_channels, 1))
        )
        stages.append((first, others))
        channels = out_channels
    final_expand = None
    if mobilenetv3:
        final_expand = _pointwise(channels, scaled(960), activation="h_swish")
        channels = final_expand.out_channels
    return _Layers(
        first_conv=ConvConfig(
            in_channels=3,
            out_channels=stem_channels,
            kernel_size=3,
            stride=2,
            activation="h_swish" if mobilenetv3 else "relu6",
        ),
        first_block=first_block,
        stages=tuple(stages),
        final_expand=final_expand,
        feature_mix=_pointwise(
            channels,
            scaled(1280),
            activation="h_swish" if mobilenetv3 else "relu6",
            has_norm=not mobilenetv3,
        ),
    )


def _block(
    stage: _Stage,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    expand_ratio: int,
    stride: int,
) -> BlockConfig:
    return BlockConfig(
        in_channels=in_channels,
        mid_channels=make_divisible(round(in_channels * expand_ratio)),
        out_channels=out_channels,
        kernel_size=kernel_size,
        stride=stride,
        has_expansion=True,
        activation=stage.activation,
        squeeze_excite=stage.squeeze_excite,
        shortcut=stride == 1 and in_channels == out_channels,
    )


def _pointwise(
    in_channels: int, out_channels: int, *, activation: Activation, has_norm: bool = True
) -> ConvConfig:
    return ConvConfig(
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=1,
        has_norm=has_norm,
        activation=activation,
    )
