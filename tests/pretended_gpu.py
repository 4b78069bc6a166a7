"""A GPU that is not there: tensors on it have shapes, types and layouts, but no values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("meta")
_CPU = torch.device("cpu")

_aten = torch.ops.aten
_BETWEEN_DEVICES = (_aten._to_copy.default, _aten.copy_.default)
_GROUP_NORMS = (_aten.native_group_norm.default, _aten.native_group_norm_backward.default)


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Within it GPU is a device like a real one, with torch's algorithms deterministic. Operations
    refuse tensors of two devices, also indices, which torch itself would copy, and generators of
    another device; group norms refuse maps that are channels last; upsampling has no gradient of
    its own; and NumPy sees nothing of what is there. What is copied from there is zeros, and where
    a single value is asked for, the answer is 1.
    """
    with (
        _Rules(),
        patch.object(torch, "Generator", _Generator),
        patch.object(Tensor, "random_", _checked_random_),
    ):
        yield


class _Rules(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Else torch imports its compiler, which takes seconds."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = list(_tensors([args, kwargs]))
        if func in _BETWEEN_DEVICES:
            return _copy(func, args, kwargs)
        if GPU in {tensor.device for tensor in tensors}:
            if func is _aten._local_scalar_dense.default:
                return 1
            _check(func, args, tensors)
        return func(*args, **kwargs)


def _copy(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if func is _aten.copy_.default:
        target, source = args[:2]
        if source.device == GPU and target.device != GPU:
            return target.zero_()
    elif args[0].device == GPU and kwargs.get("device", GPU) != GPU:
        args = (torch.zeros_like(args[0], device=kwargs["device"]),)
    return func(*args, **kwargs)


def _check(func: Any, args: Any, tensors: list[Tensor]) -> None:
    if func is not _aten._fused_adam_.default:
        tensors = [tensor for tensor in tensors if tensor.dim() > 0]
    if any(tensor.device != GPU for tensor in tensors):
        raise RuntimeError(f"{func} gets tensors of two devices")
    if func in _GROUP_NORMS and not all(tensor.is_contiguous() for tensor in tensors):
        raise RuntimeError(f"{func} gets a map that is channels last")
    if func is _aten.upsample_bilinear2d_backward.default:
        raise RuntimeError(f"{func} does not have a deterministic implementation")


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


_random_ = Tensor.random_


def _checked_random_(tensor: Tensor, *args: Any, generator: _Generator) -> Tensor:
    if generator.of != tensor.device:
        raise RuntimeError(f"a tensor on {tensor.device} gets a generator of {generator.of}")
    return _random_(tensor, *args, generator=generator)


class _Generator(torch.Generator):
    """Where there are no values any generator serves, and torch has none of its own."""

    of: torch.device

    def __new__(cls, device: torch.device = _CPU) -> Self:
        generator = super().__new__(cls, "cpu" if device == GPU else device)
        generator.of = device
        return generator
