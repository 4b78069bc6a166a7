"""Where backward leaves the gradients of parameters, until the whole batch's is complete."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard

from torch import Tensor

Finish = Callable[[Tensor, Tensor], None]


def learns(parameter: Tensor | None) -> TypeGuard[Tensor]:
    """Whether there is such a parameter and it is trained."""
    return parameter is not None and parameter.requires_grad


def needed(gradient: Tensor | None) -> Tensor:
    """A gradient that backward was asked for."""
    assert gradient is not None
    return gradient


class Gradients:
    """Sums of gradients over micro-batches.

    finish is given each parameter with its whole batch's gradient during backward, as soon as
    that is complete, and may change the parameter at once: an update needs no further buffer. A
    gradient that completes in one backward is never stored.
    """

    def __init__(self, finish: Finish) -> None:
        self._finish = finish
        self._sums: dict[Tensor, Tensor] = {}
        self.completes = True
        """Whether what is added now completes the batch."""

    def add(self, parameter: Tensor, gradient: Tensor) -> None:
        """Take one micro-batch's gradient, which may be overwritten, in the parameter's shape."""
        total = self._sums.pop(parameter, None)
        if total is not None:
            gradient = total.add_(gradient)
        if self.completes:
            self._finish(parameter, gradient)
        else:
            self._sums[parameter] = gradient
