"""What a supernet can be cut to, in plain Python (Once-for-All, arXiv 1908.09791).

No torch here: the web process prices subnets without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import NamedTuple

from search.errors import SpaceError
from search.space.families import Design, Stage, design_of
from tinytl.description.config import BlockConfig, NetworkConfig, make_divisible

__all__ = ["Stage", "Subnet", "SupernetSpec"]


@dataclass(frozen=True, kw_only=True)
class Subnet:
    """A choice of subnet: one entry per dynamic block at full depth, and each stage's depth.

    Dynamic blocks are those of the stages and the last one: 21 in Proxyless and 20 in
    MobileNetV3 (with stages of at most 4 blocks), 15 in EfficientNet-Lite0. depths has one entry
    per stage. Entries of blocks beyond their stage's depth mean nothing; SupernetSpec.canonical
    fixes them.
    """

    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[int, ...]
    depths: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SupernetSpec(Design):
    """The architecture of a supernet: which choices its blocks and stages offer."""

    id: str

    @staticmethod
    def parse(supernet_id: str) -> SupernetSpec:
        """Read an id such as ofa_proxyless_d234_e346_k357_w1.3 or efficientnet_lite0, any suffix
        after it allowed.

        The suffix _gn, alone or with another after it, says that the norm is group norm with
        weight standardization; else it is batch norm.
        """
        return SupernetSpec(id=supernet_id, **vars(design_of(supernet_id)))

    def __hash__(self) -> int:
        """Specs are the keys that prices are found by; equality tells apart what the id does
        not."""
        return hash(self.id)

    @cached_property
    def block_stages(self) -> tuple[Stage, ...]:
        """Of each dynamic block, the stage that it belongs to."""
        of_stages = [stage for stage in self.stages for _ in range(stage.depths[-1])]
        return (*of_stages, *self._last)

    @cached_property
    def stage_starts(self) -> tuple[int, ...]:
        """The number of each stage's first dynamic block."""
        depths = [stage.depths[-1] for stage in self.stages]
        return tuple(accumulate(depths[:-1], initial=0))

    @property
    def num_dynamic_blocks(self) -> int:
        return len(self.block_stages)

    @cached_property
    def kernel_sizes(self) -> tuple[int, ...]:
        """Those that any block may have, rising."""
        return _union([stage.kernel_sizes for stage in self.block_stages])

    @cached_property
    def expand_ratios(self) -> tuple[int, ...]:
        """Those that any block may have, rising."""
        return _union([stage.expand_ratios for stage in self.block_stages])

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Those that any stage may have, rising."""
        return _union([stage.depths for stage in self.stages])

    @property
    def max_depth(self) -> int:
        """Of the deepest stage."""
        return self.depths[-1]

    @property
    def largest(self) -> Subnet:
        return self.uniform(self.kernel_sizes[-1], self.expand_ratios[-1], self.depths[-1])

    @property
    def smallest(self) -> Subnet:
        return self.uniform(self.kernel_sizes[0], self.expand_ratios[0], self.depths[0])

    @property
    def middle(self) -> Subnet:
        """Uniform, between the two."""
        choices = (self.kernel_sizes, self.expand_ratios, self.depths)
        return self.uniform(*(values[len(values) // 2] for values in choices))

    def uniform(self, kernel_size: int, expand_ratio: int, depth: int) -> Subnet:
        """The canonical subnet with the same choice everywhere: where there is no such choice, the
        largest below it, or the smallest."""
        for name, value in (
            ("kernel_sizes", kernel_size),
            ("expand_ratios", expand_ratio),
            ("depths", depth),
        ):
            if value not in getattr(self, name):
                raise SpaceError(
                    f"{name} of {self.id} are {list(getattr(self, name))} but got {value!r}"
                )
        blocks = self.block_stages
        return self.canonical(
            Subnet(
                kernel_sizes=tuple(_at_most(kernel_size, s.kernel_sizes) for s in blocks),
                expand_ratios=tuple(_at_most(expand_ratio, s.expand_ratios) for s in blocks),
                depths=tuple(_at_most(depth, stage.depths) for stage in self.stages),
            )
        )

    @property
    def uniform_subnets(self) -> list[Subnet]:
        """The different subnets of each kernel size, expand ratio and depth everywhere."""
        found = [
            self.uniform(kernel_size, expand_ratio, depth)
            for kernel_size in self.kernel_sizes
            for expand_ratio in self.expand_ratios
            for depth in self.depths
        ]
        return list(dict.fromkeys(found))

    def check(self, subnet: Subnet) -> None:
        """Raise SpaceError, quoting the value, where the subnet is not one of this supernet."""
        if self._is_plainly_right(subnet):
            return
        for name, of_all in self._choices.items():
            values: tuple[int, ...] = getattr(subnet, name)
            if len(values) != len(of_all):
                raise SpaceError(
                    f"{name} must have {len(of_all)} entries for {self.id} but has {len(values)}"
                )
            for index, (value, choices) in enumerate(zip(values, of_all, strict=True)):
                if type(value) is not int or value not in choices:
                    raise SpaceError(
                        f"{name}[{index}] must be one of {list(choices)} but got {value!r}"
                    )

    def _is_plainly_right(self, subnet: Subnet) -> bool:
        """check's question, with no answer to what is wrong: it is asked for every price."""
        values = subnet.kernel_sizes + subnet.expand_ratios + subnet.depths
        return (
            len(subnet.kernel_sizes) == len(subnet.expand_ratios) == len(self.block_stages)
            and len(subnet.depths) == len(self.stages)
            and all(map(frozenset.__contains__, self._allowed, values))
            and {*map(type, values)} == {int}
        )

    @cached_property
    def _choices(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Of each entry of a subnet."""
        return {
            "kernel_sizes": tuple(stage.kernel_sizes for stage in self.block_stages),
            "expand_ratios": tuple(stage.expand_ratios for stage in self.block_stages),
            "depths": tuple(stage.depths for stage in self.stages),
        }

    @cached_property
    def _allowed(self) -> tuple[frozenset[int], ...]:
        return tuple(frozenset(c) for of_all in self._choices.values() for c in of_all)

    def canonical(self, subnet: Subnet) -> Subnet:
        """The same network with entries of absent blocks set to the smallest choices."""
        self.check(subnet)
        present = {index - 1 for stage in self.active_blocks(subnet) for index in stage}
        stages = self.block_stages
        kernel_sizes, expand_ratios = subnet.kernel_sizes, subnet.expand_ratios
        return Subnet(
            kernel_sizes=tuple(
                kernel_sizes[i] if i in present else stage.kernel_sizes[0]
                for i, stage in enumerate(stages)
            ),
            expand_ratios=tuple(
                expand_ratios[i] if i in present else stage.expand_ratios[0]
                for i, stage in enumerate(stages)
            ),
            depths=subnet.depths,
        )

    def active_blocks(self, subnet: Subnet) -> Iterator[range]:
        """Indices of a subnet's dynamic blocks in the full-depth network, stage by stage.

        Block 0 of the network is static, so dynamic block i has index i + 1.
        """
        for start, depth in zip(self.stage_starts, subnet.depths, strict=True):
            yield range(start + 1, start + 1 + depth)
        if self.last is not None:
            yield range(self.num_dynamic_blocks, self.num_dynamic_blocks + 1)

    def network_config(
        self, subnet: Subnet, num_classes: int, *, dropout_rate: float = 0.0
    ) -> NetworkConfig:
        """The static network that the subnet is, without lite residual modules.

        Of an OFA supernet, equal to tinytl.description.ofa_format.from_ofa of ofa's own
        get_active_net_config.
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
            first_conv=self.first_conv,
            blocks=tuple(blocks),
            final_expand=self.final_expand,
            feature_mix=self.feature_mix,
            num_classes=num_classes,
            dropout_rate=dropout_rate,
            padding=self.padding,
            normalization=self.normalization,
        )

    @property
    def _last(self) -> tuple[Stage, ...]:
        return () if self.last is None else (self.last,)

    @cached_property
    def _layers(self) -> _Layers:
        return _layers(self.first_block, (*self.stages, *self._last))


def _union(choices: list[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sorted(set().union(*choices)))


def _at_most(value: int, choices: tuple[int, ...]) -> int:
    return max((choice for choice in choices if choice <= value), default=choices[0])


_BlockChoices = dict[tuple[int, int], BlockConfig]
"""A block for each kernel size and expand ratio."""


class _Layers(NamedTuple):
    """Blocks of subnets. stages: the choices for the first block of each, and for others."""

    first_block: BlockConfig
    stages: tuple[tuple[_BlockChoices, _BlockChoices], ...]


@lru_cache(maxsize=64)
def _layers(first_block: BlockConfig, stages: tuple[Stage, ...]) -> _Layers:
    """The same objects for equal supernets: costs of blocks are found by identity."""
    found = []
    channels = first_block.out_channels
    for stage in stages:
        first, others = (
            {
                (kernel_size, expand_ratio): _block(
                    stage, in_channels, kernel_size, expand_ratio, stride
                )
                for kernel_size in stage.kernel_sizes
                for expand_ratio in stage.expand_ratios
            }
            for in_channels, stride in ((channels, stage.stride), (stage.out_channels, 1))
        )
        found.append((first, others))
        channels = stage.out_channels
    return _Layers(first_block, tuple(found))


def _block(
    stage: Stage, in_channels: int, kernel_size: int, expand_ratio: int, stride: int
) -> BlockConfig:
    return BlockConfig(
        in_channels=in_channels,
        mid_channels=make_divisible(round(in_channels * expand_ratio)),
        out_channels=stage.out_channels,
        kernel_size=kernel_size,
        stride=stride,
        has_expansion=True,
        activation=stage.activation,
        squeeze_excite=stage.squeeze_excite,
        shortcut=stride == 1 and in_channels == stage.out_channels,
    )
