"""What the search chooses: a frozen Candidate, and the space that holds all of them.

No torch here: the web process prices candidates without it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from search.errors import SpaceError
from search.space.architecture import Subnet, SupernetSpec
from tinytl.description.config import LiteResidualSize
from tinytl.description.method import Method, PeakMeaning
from tinytl.description.plan import Plan
from tinytl.errors import ConfigError

__all__ = ["Candidate", "Parameter", "SearchSpace", "Subnet", "sample_subnet"]

Parameter = int | str
"""A value of an encoded candidate, as Optuna stores it."""

MIN_RESOLUTION = 16
MAX_RESOLUTION = 512


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Everything that is chosen for a device: subnet, input, side branches, training plan.

    resolution is the side of the square input in pixels. lite_residual None is a network without
    lite residual modules, as is any size where the method has none
    (search.space.lite_residual_sizes.method_of).
    """

    subnet: Subnet
    resolution: int
    lite_residual: LiteResidualSize | None
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
            "lite_residual": None if self.lite_residual is None else asdict(self.lite_residual),
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
        plan = _fields(
            top["plan"], "plan", ("batch_size", "stretches", "optimizer_bits", "trained_bits")
        )
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
            lite_residual=_size(top["lite_residual"]),
            plan=checked_plan,
        )


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The candidates of one search: a supernet's subnets, times what else may be chosen.

    Of lite_residual_sizes, None comes first: no modules. batch_size is fixed by the job; the rest
    of the plan follows from the limit. image_size: the side at which images are stored, None for
    the largest resolution. peak_meaning: what candidates are priced in; methods that the device
    trainer refuses have torch's peak anyway.
    """

    supernet: SupernetSpec
    resolutions: tuple[int, ...]
    lite_residual_sizes: tuple[LiteResidualSize | None, ...] = (LiteResidualSize(),)
    batch_size: int = 8
    image_size: int | None = None
    peak_meaning: PeakMeaning = PeakMeaning.PROCESS

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
        if None in self.lite_residual_sizes[1:]:
            raise SpaceError(
                f"of lite_residual_sizes, None must come first, once, "
                f"but they are {self.lite_residual_sizes}"
            )
        if self.batch_size < 1:
            raise SpaceError(f"batch_size must be at least 1 but got {self.batch_size}")
        if self.image_size is not None and self.image_size < self.resolutions[-1]:
            raise SpaceError(
                f"image_size must be at least the largest resolution, {self.resolutions[-1]}, "
                f"but got {self.image_size}"
            )

    @property
    def stored_size(self) -> int:
        """The side at which images are stored, in pixels."""
        return self.image_size or self.resolutions[-1]

    def prices_process(self, method: Method) -> bool:
        """Whether candidates that are trained with the method are priced as whole processes."""
        return PeakMeaning.PROCESS is self.peak_meaning is method.peak_meaning

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
        """A candidate of this space in canonical form, with the slow plan; lite_residual None is
        the first of its sizes.
        """
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
        """The searched parameters by name, each with its values: of a subnet's those that have
        more than one, then resolution and lite_residual. The plan is not searched."""
        return {
            **{n: values for n, values in _subnet_choices(self.supernet).items() if values[1:]},
            "resolution": self.resolutions,
            "lite_residual": tuple(_size_label(size) for size in self.lite_residual_sizes),
        }

    def encode(self, candidate: Candidate) -> dict[str, Parameter]:
        """The candidate as flat parameters, those of choices(): all but the plan."""
        subnet = candidate.subnet
        values = subnet.kernel_sizes + subnet.expand_ratios + subnet.depths
        of_subnet = zip(_subnet_choices(self.supernet).items(), values, strict=True)
        return {
            **{name: value for (name, choices), value in of_subnet if choices[1:]},
            "resolution": candidate.resolution,
            "lite_residual": _size_label(candidate.lite_residual),
        }

    def decode(self, parameters: Mapping[str, Parameter]) -> Candidate:
        """The canonical candidate of flat parameters, with the slow plan."""
        missing = self.choices().keys() - parameters.keys()
        if missing:
            raise SpaceError(f"parameters are missing: {sorted(missing)}")
        labels = {_size_label(size): size for size in self.lite_residual_sizes}
        label = parameters["lite_residual"]
        if label not in labels:
            raise SpaceError(f"lite_residual must be one of {sorted(labels)} but got {label!r}")
        values = [
            int(parameters[name]) if choices[1:] else choices[0]
            for name, choices in _subnet_choices(self.supernet).items()
        ]
        return self.candidate(
            _subnet_of(self.supernet, values), int(parameters["resolution"]), labels[str(label)]
        )


def sample_subnet(spec: SupernetSpec, rng: random.Random) -> Subnet:
    """A canonical subnet drawn evenly from each choice."""
    values = [rng.choice(choices) for choices in _subnet_choices(spec).values()]
    return spec.canonical(_subnet_of(spec, values))


@lru_cache(maxsize=64)
def _subnet_choices(spec: SupernetSpec) -> dict[str, tuple[int, ...]]:
    """Of each entry of a subnet, those with one value too."""
    blocks = list(enumerate(spec.block_stages))
    return {
        **{f"kernel_size_{i}": stage.kernel_sizes for i, stage in blocks},
        **{f"expand_ratio_{i}": stage.expand_ratios for i, stage in blocks},
        **{f"depth_{i}": stage.depths for i, stage in enumerate(spec.stages)},
    }


def _subnet_of(spec: SupernetSpec, values: Sequence[int]) -> Subnet:
    """Of values in the order of _subnet_choices."""
    count = spec.num_dynamic_blocks
    return Subnet(
        kernel_sizes=tuple(values[:count]),
        expand_ratios=tuple(values[count : 2 * count]),
        depths=tuple(values[2 * count :]),
    )


def _size_label(size: LiteResidualSize | None) -> str:
    if size is None:
        return "none"
    return f"groups{size.groups}_kernel{size.max_kernel_size}_expand{size.expand:g}"


def _size(data: object) -> LiteResidualSize | None:
    if data is None:
        return None
    size = _fields(data, "lite_residual", ("groups", "max_kernel_size", "expand"))
    expand = size["expand"]
    if isinstance(expand, bool) or not isinstance(expand, int | float) or not 0 < expand <= 8:
        raise SpaceError(f"lite_residual expand must be above 0 and at most 8, got {expand!r}")
    return LiteResidualSize(
        groups=_integer(size["groups"], "lite_residual groups"),
        max_kernel_size=_integer(size["max_kernel_size"], "lite_residual kernel size"),
        expand=float(expand),
    )


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
