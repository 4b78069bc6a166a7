"""SPEC.json: one training to price or to measure, as users and the published profiler write it.

Example: {"network": "ofa_proxyless_d234_e346_k357_w1.3", "subnet": {"ks": [...], "e": [...],
"d": [...]}, "method": "lite_residual+bias", "resolution": 224, "batch_size": 8,
"num_classes": 102}. The network "proxyless_mobile" is ProxylessNAS-Mobile and has no subnet.
"norm" is "batch", frozen and folded, or "group", with weight standardization (the paper's); by
default the network's own, and a network that has group norm ("_gn" in its name) keeps it.
"plan" is a Plan as JSON; "micro_batch_size" stands for one that passes the whole network alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from search.errors import SpaceError, SpecError
from search.space.architecture import Subnet, SupernetSpec
from tinytl.description.config import GROUP_NORM, NetworkConfig, with_lite_residuals
from tinytl.description.method import Method
from tinytl.description.ofa_format import from_ofa
from tinytl.description.plan import Plan
from tinytl.errors import ConfigError

PROXYLESS_MOBILE = "proxyless_mobile"
_SUBNET_KEYS = {"ks": "kernel_sizes", "e": "expand_ratios", "d": "depths"}
_REQUIRED = {"network", "method", "resolution", "batch_size", "num_classes"}
_OPTIONAL = {
    "subnet": None,
    "norm": None,
    "frozen_param_bits": 8,
    "micro_batch_size": None,
    "plan": None,
}
_FROZEN_BITS = (8, 32)
_RESOLUTIONS = range(32, 513)
_MAX_BATCH_SIZE = 4096
_MAX_CLASSES = 100_000


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A training: the network (with lite residuals where the method has them) and its plan.

    given_plan: None where the file names none.
    """

    network: NetworkConfig
    method: Method
    resolution: int
    batch_size: int
    given_plan: Plan | None
    frozen_param_bits: Literal[8, 32]

    @property
    def plan(self) -> Plan:
        """The given plan, or the whole batch at once."""
        return self.given_plan or Plan.whole(self.batch_size)

    def with_plan(self, content: Any) -> Spec:
        """The same training with the plan that this JSON describes. Raises SpecError."""
        try:
            plan = Plan.from_dict(content)
            plan.part_starts(self.network.part_stages)
        except ConfigError as error:
            raise SpecError(str(error)) from error
        if plan.batch_size != self.batch_size:
            raise SpecError(
                f"the plan's batch_size must be the spec's, {self.batch_size}, "
                f"but got {plan.batch_size}"
            )
        return replace(self, given_plan=plan)


def load_spec(path: Path) -> Spec:
    """Read a SPEC.json. Raises SpecError quoting what is wrong."""
    return parse_spec(load_json(path))


def load_json(path: Path) -> Any:
    """What a JSON file holds. Raises SpecError where it can't be read or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SpecError(f"can't read {str(path)!r}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{str(path)!r} is not JSON: {error}") from error


def parse_spec(content: Any) -> Spec:
    """The training that a SPEC.json's content describes. Raises SpecError."""
    if not isinstance(content, Mapping):
        raise SpecError(f"a spec must be a JSON object but got {content!r}")
    if missing := _REQUIRED - content.keys():
        raise SpecError(f"the spec lacks {sorted(missing)}")
    results = {"param_bytes", "peak_activation_bytes_per_image", "total_bytes"}
    if unknown := content.keys() - _REQUIRED - _OPTIONAL.keys() - results:
        raise SpecError(f"the spec has unknown keys {sorted(unknown)}")
    values = {**_OPTIONAL, **content}
    batch_size = _integer(values, "batch_size", range(1, _MAX_BATCH_SIZE + 1))
    plan = None
    if values["micro_batch_size"] is not None:
        if values["plan"] is not None:
            raise SpecError("the spec has a plan and a micro_batch_size; give one of them")
        size = _integer(values, "micro_batch_size", range(1, batch_size + 1))
        plan = Plan.whole(batch_size, size)
    bits = _integer(values, "frozen_param_bits", _FROZEN_BITS)
    method = _method(values["method"])
    network = _network(values, _integer(values, "num_classes", range(2, _MAX_CLASSES + 1)))
    if values["norm"] not in (None, "batch", "group"):
        raise SpecError(f"norm must be 'batch' or 'group' but got {values['norm']!r}")
    if values["norm"] == "batch" and network.norm.kind == "group":
        raise SpecError(f"network {values['network']!r} has group norm but got norm 'batch'")
    if values["norm"] == "group":
        network = replace(network, norm=GROUP_NORM)
    spec = Spec(
        network=with_lite_residuals(network) if method.uses_lite_residual else network,
        method=method,
        resolution=_integer(values, "resolution", _RESOLUTIONS),
        batch_size=batch_size,
        given_plan=plan,
        frozen_param_bits=8 if bits == 8 else 32,
    )
    return spec if values["plan"] is None else spec.with_plan(values["plan"])


def _integer(values: Mapping[str, Any], key: str, allowed: range | tuple[int, ...]) -> int:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        if isinstance(allowed, range):
            wanted = f"an integer from {allowed[0]} to {allowed[-1]}"
        else:
            wanted = f"one of {list(allowed)}"
        raise SpecError(f"{key} must be {wanted} but got {value!r}")
    return value


def _method(value: Any) -> Method:
    try:
        return Method(value)
    except ValueError as error:
        wanted = [method.value for method in Method]
        raise SpecError(f"method must be one of {wanted} but got {value!r}") from error


def _network(values: Mapping[str, Any], num_classes: int) -> NetworkConfig:
    name, subnet = values["network"], values["subnet"]
    if name == PROXYLESS_MOBILE:
        if subnet is not None:
            raise SpecError(f"network {PROXYLESS_MOBILE!r} has no subnet but got {subnet!r}")
        return replace(proxyless_mobile(), num_classes=num_classes)
    if not isinstance(name, str):
        raise SpecError(f"network must be a name but got {name!r}")
    try:
        supernet = SupernetSpec.parse(name)
        chosen = supernet.largest if subnet is None else _subnet(subnet)
        return supernet.network_config(chosen, num_classes)
    except SpaceError as error:
        raise SpecError(str(error)) from error


def _subnet(content: Any) -> Subnet:
    if not isinstance(content, Mapping) or content.keys() != _SUBNET_KEYS.keys():
        raise SpecError(f"subnet must have the keys {list(_SUBNET_KEYS)} but got {content!r}")
    try:
        return Subnet(**{name: tuple(content[key]) for key, name in _SUBNET_KEYS.items()})
    except TypeError as error:
        raise SpecError(f"subnet must hold lists of integers but got {content!r}") from error


def proxyless_mobile() -> NetworkConfig:
    """ProxylessNAS-Mobile as published (arXiv 1812.00332), 1000 classes."""
    text = (files("search") / "networks" / f"{PROXYLESS_MOBILE}.json").read_text()
    return from_ofa(json.loads(text))
