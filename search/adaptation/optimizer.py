"""Adam for an adaptation, where each step trains another subnet."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from tinytl.errors import BundleError

_STATE = ("step", "exp_avg", "exp_avg_sq")


class SubnetAdam:
    """Adam (arXiv 1412.6980) that passes over parameters without a gradient.

    Each parameter has a step count of its own, as in torch.optim.Adam, whose results these are
    bit for bit; that one imports torch's compiler.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = dict(parameters)
        self._state: dict[str, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update each parameter by its gradient, where it has one, and drop the gradients."""
        gradients = {n: p.grad for n, p in self._parameters.items() if p.grad is not None}
        for name in gradients.keys() - self._state.keys():
            zeros = [torch.zeros_like(self._parameters[name]) for _ in range(2)]
            self._state[name] = dict(zip(_STATE, (torch.zeros(()), *zeros), strict=True))
        steps, first_moments, second_moments = (
            [self._state[name][key] for name in gradients] for key in _STATE
        )
        learning: list[Tensor] = [self._parameters[name] for name in gradients]
        adam(
            learning,
            list(gradients.values()),
            first_moments,
            second_moments,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
        for parameter in learning:
            parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """The parameters and their state, not copies, by name: for a checkpoint."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._parameters.items():
            tensors[f"parameter.{name}"] = parameter
            for key, value in self._state.get(name, {}).items():
                tensors[f"{key}.{name}"] = value
        return tensors

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what state_tensors gave; a parameter without a gradient so far has no state.

        Raises BundleError where a tensor lacks or is of another shape.
        """
        for name, parameter in self._parameters.items():
            keys = ["parameter", *(_STATE if f"step.{name}" in tensors else ())]
            found = {key: _taken(tensors, f"{key}.{name}", parameter.shape) for key in keys}
            parameter.copy_(found.pop("parameter"))
            if found:
                self._state[name] = found


def _taken(tensors: Mapping[str, Tensor], name: str, shape: torch.Size) -> Tensor:
    if name not in tensors:
        raise BundleError(f"training state lacks {name!r}")
    expected = torch.Size() if name.startswith("step.") else shape
    if tensors[name].shape != expected:
        raise BundleError(
            f"training state has the shape {tuple(tensors[name].shape)} for {name!r}, "
            f"not {tuple(expected)}"
        )
    return tensors[name]
