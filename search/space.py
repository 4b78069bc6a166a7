"""What the search chooses: a frozen Candidate, and the space that holds all of them.

No torch here: the web process prices candidates without it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from search.architecture import NUM_ELASTIC_STAGES, Subnet, SupernetSpec
from search.errors import SpaceError
from tinytl.config import LiteResidualSize
from tinytl.errors import ConfigError
from tinytl.plan import Plan

__all__ = ["Candidate", "Parameter", "SearchSpace", "Subnet", "sample_subnet"]

Parameter = int | str
"""A value of an encoded candidate, as Optuna stores it."""

MIN_RESOLUTION = 16
MAX_RESOLUTION = 512


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Everything that is chosen for a device: subnet, input, side branches, training plan.

    resolution is the side of the square input in pixels. lite_residual is kept, but builds
    nothing, where the method has no lite residual modules.
    """

    subnet: Subnet
    resolution: int
    lite_residual: LiteResidualSize
    plan: Plan

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; from_dict reads it back to an equal candidate."""
        return {
            "subnet": {
                "kernel_sizes": list(self.subnet.kernel_sizes),
                "expand_ratios": list(self.subnet.expand_ratios),
                "depths": list(self.subnet.depths),
            },
            "resolution": self.resolution,
            "lite_residual": {
                "groups": self.lite_residual.groups,
                "max_kernel_size": self.lite_residual.max_kernel_size,
                "expand": self.lite_residual.expand,
            },
            "plan": {
                **asdict(self.plan),
                "stretches": [asdict(stretch) for stretch in self.plan.stretches],
            },
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Candidate:
        """Read to_dict's form. Raises SpaceError, quoting the value, where it is malformed."""
        top = _fields(data, "candidate", ("subnet", "resolution", "lite_residual", "plan"))
        subnet = _fields(top["subnet"], "subnet", ("kernel_sizes", "expand_ratios", "depths"))
        size = _fields(
            top["lite_residual"], "lite_residual", ("groups", "max_kernel_size", "expand")
        )
        plan = _fields(
            top["plan"], "plan", ("batch_size", "stretches", "optimizer_bits", "trained_bits")
        )
        expand = size["expand"]
        if isinstance(expand, bool) or not isinstance(expand, int | float) or not 0 < expand <= 8:
            raise SpaceError(f"lite_residual expand must be above 0 and at most 8, got {expand!r}")
        try:
            checked_plan = Plan.from_dict(plan)
        except ConfigError as error:
            raise SpaceError(str(error)) from error
        return Candidate(
            subnet=Subnet(
                kernel_sizes=_integers(subnet["kernel_sizes"], "kernel_sizes"),
                expand_ratios=_integers(subnet["expand_ratios"], "expand_ratios"),
                depths=_integers(subnet["depths"], "depths"),
            ),
            resolution=_integer(top["resolution"], "resolution"),
            lite_residual=LiteResidualSize(
                groups=_integer(size["groups"], "lite_residual groups"),
                max_kernel_size=_integer(size["max_kernel_size"], "lite_residual kernel size"),
                expand=float(expand),
            ),
            plan=checked_plan,
        )


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The candidates of one search: a supernet's subnets, times what else may be chosen.

    batch_size is fixed by the job; the rest of the plan follows from the limit.
    """

    supernet: SupernetSpec
    resolutions: tuple[int, ...]
    lite_residual_sizes: tuple[LiteResidualSize, ...] = (LiteResidualSize(),)
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not self.resolutions or list(self.resolutions) != sorted(set(self.resolutions)):
            raise SpaceError(f"resolutions must rise and not be empty but are {self.resolutions}")
        if self.resolutions[0] < MIN_RESOLUTION or self.resolutions[-1] > MAX_RESOLUTION:
            raise SpaceError(
                f"resolutions must be from {MIN_RESOLUTION} to {MAX_RESOLUTION} "
                f"but are {self.resolutions}"
            )
        if not self.lite_residual_sizes:
            raise SpaceError("lite_residual_sizes must not be empty")
        if self.batch_size < 1:
            raise SpaceError(f"batch_size must be at least 1 but got {self.batch_size}")

    @property
    def slow_plan(self) -> Plan:
        """One image at a time: what a candidate has until its plan is chosen for a limit."""
        return Plan.whole(self.batch_size, 1)

    def check(self, candidate: Candidate) -> None:
        """Raise SpaceError where the candidate is not one of this space, in canonical form."""
        if self.supernet.canonical(candidate.subnet) != candidate.subnet:
            raise SpaceError("subnet has entries of absent blocks that are not the smallest")
        if candidate.resolution not in self.resolutions:
            raise SpaceError(
                f"resolution must be one of {list(self.resolutions)} "
                f"but got {candidate.resolution!r}"
            )
        if candidate.lite_residual not in self.lite_residual_sizes:
            raise SpaceError(f"lite residual size is not in the space: {candidate.lite_residual}")
        if candidate.plan.batch_size != self.batch_size:
            raise SpaceError(
                f"batch_size must be {self.batch_size} but got {candidate.plan.batch_size}"
            )

    def candidate(
        self, subnet: Subnet, resolution: int, lite_residual: LiteResidualSize | None = None
    ) -> Candidate:
        """A candidate of this space in canonical form, with the slow plan."""
        candidate = Candidate(
            subnet=self.supernet.canonical(subnet),
            resolution=resolution,
            lite_residual=lite_residual or self.lite_residual_sizes[0],
            plan=self.slow_plan,
        )
        self.check(candidate)
        return candidate

    def sample(self, rng: random.Random) -> Candidate:
        """A candidate drawn evenly from each choice, with the slow plan."""
        return self.candidate(
            sample_subnet(self.supernet, rng),
            rng.choice(self.resolutions),
            rng.choice(self.lite_residual_sizes),
        )

    def smallest(self, resolution: int | None = None) -> Candidate:
        """The smallest subnet, at a resolution or (None) the smallest."""
        return self.candidate(self.supernet.smallest, resolution or self.resolutions[0])

    def largest(self, resolution: int | None = None) -> Candidate:
        """The largest subnet, at a resolution or (None) the largest."""
        return self.candidate(self.supernet.largest, resolution or self.resolutions[-1])

    def choices(self) -> dict[str, tuple[Parameter, ...]]:
        """The searched parameters by name, each with its values. The plan is not searched."""
        blocks = range(self.supernet.num_dynamic_blocks)
        return {
            **{f"kernel_size_{i}": self.supernet.kernel_sizes for i in blocks},
            **{f"expand_ratio_{i}": self.supernet.expand_ratios for i in blocks},
            **{f"depth_{i}": self.supernet.depths for i in range(NUM_ELASTIC_STAGES)},
            "resolution": self.resolutions,
            "lite_residual": tuple(_size_label(size) for size in self.lite_residual_sizes),
        }

    def encode(self, candidate: Candidate) -> dict[str, Parameter]:
        """The candidate as flat parameters, those of choices(): all but the plan."""
        subnet = candidate.subnet
        return {
            **{f"kernel_size_{i}": size for i, size in enumerate(subnet.kernel_sizes)},
            **{f"expand_ratio_{i}": ratio for i, ratio in enumerate(subnet.expand_ratios)},
            **{f"depth_{i}": depth for i, depth in enumerate(subnet.depths)},
            "resolution": candidate.resolution,
            "lite_residual": _size_label(candidate.lite_residual),
        }

    def decode(self, parameters: Mapping[str, Parameter]) -> Candidate:
        """The canonical candidate of flat parameters, with the slow plan."""
        missing = self.choices().keys() - parameters.keys()
        if missing:
            raise SpaceError(f"parameters are missing: {sorted(missing)}")
        blocks = range(self.supernet.num_dynamic_blocks)
        labels = {_size_label(size): size for size in self.lite_residual_sizes}
        label = parameters["lite_residual"]
        if label not in labels:
            raise SpaceError(f"lite_residual must be one of {sorted(labels)} but got {label!r}")
        return self.candidate(
            Subnet(
                kernel_sizes=tuple(int(parameters[f"kernel_size_{i}"]) for i in blocks),
                expand_ratios=tuple(int(parameters[f"expand_ratio_{i}"]) for i in blocks),
                depths=tuple(int(parameters[f"depth_{i}"]) for i in range(NUM_ELASTIC_STAGES)),
            ),
            int(parameters["resolution"]),
            labels[str(label)],
        )


def sample_subnet(spec: SupernetSpec, rng: random.Random) -> Subnet:
    """A canonical subnet drawn evenly from each choice."""
    blocks = range(spec.num_dynamic_blocks)
    return spec.canonical(
        Subnet(
            kernel_sizes=tuple(rng.choice(spec.kernel_sizes) for _ in blocks),
            expand_ratios=tuple(rng.choice(spec.expand_ratios) for _ in blocks),
            depths=tuple(rng.choice(spec.depths) for _ in range(NUM_ELASTIC_STAGES)),
        )
    )


def _size_label(size: LiteResidualSize) -> str:
    return f"groups{size.groups}_kernel{size.max_kernel_size}_expand{size.expand:g}"


def _fields(data: object, name: str, fields: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise SpaceError(f"{name} must be an object but got {data!r}")
    if set(data) != set(fields):
        raise SpaceError(f"{name} must have the fields {list(fields)} but has {sorted(data)}")
    return data


def _integer(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpaceError(f"{name} must be a whole number of at least 1 but got {value!r}")
    return value


def _integers(values: object, name: str) -> tuple[int, ...]:
    if not isinstance(values, list | tuple):
        raise SpaceError(f"{name} must be a list but got {values!r}")
    return tuple(_integer(value, f"{name}[{index}]") for index, value in enumerate(values))
