"""Adam for one tensor at a time, with moments in 32 or 8 bits and weights in float32 or bfloat16.

An update consumes the gradient of one tensor, so it can run in the middle of backward and no
tensor's gradient has to wait for the others. What it allocates is in
tinytl.accounting.layers.optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam

from tinytl.description.chunks import ADAM_CHUNK_VALUES, MOMENT_BLOCK_VALUES, has_8bit_moments
from tinytl.description.plan import OptimizerBits
from tinytl.errors import BundleError

_NOISE_BITS = 16
_SMALLEST_ROOT = 1e-6  # numbers of smaller roots drown in eps


@dataclass(frozen=True, kw_only=True)
class _Code:
    """An 8-bit code q of a number x: |x| = (scale q / top)^(2^square_roots).

    scale: one per block, the root of its largest |x|.
    """

    top: int
    square_roots: int


_FIRST = _Code(top=127, square_roots=2)
_SECOND = _Code(top=255, square_roots=3)
"""Fourth power for m, eighth for v, which is the fourth for sqrt(v). Within a block both reach
over many orders of magnitude, most in a classifier. Lower powers, and floats of 8 bits with 4 of
mantissa, have no codes for the smallest, which are then updated far too much or hardly at all.
"""

_LEAST_SECOND = 2
"""The least code of v: its root is no smaller a share than code 1 of m, or updates explode."""


@dataclass(frozen=True, kw_only=True)
class _Moment:
    """One moment of one tensor, flat, in the order of the tensor's memory.

    values: floats, or 8-bit codes with scales (one per block): int8 of the first moment, uint8
    of the second.
    """

    values: Tensor
    scales: Tensor | None

    @staticmethod
    def zero(num_values: int, dtype: torch.dtype, device: torch.device) -> _Moment:
        values = torch.zeros(num_values, dtype=dtype, device=device)
        if dtype.is_floating_point:
            return _Moment(values=values, scales=None)
        num_blocks = math.ceil(num_values / MOMENT_BLOCK_VALUES)
        return _Moment(values=values, scales=torch.zeros(num_blocks, device=device))

    def part(self, chunk: slice) -> _Moment:
        scales = self.scales
        if scales is not None:
            scales = scales[chunk.start // MOMENT_BLOCK_VALUES : chunk.stop // MOMENT_BLOCK_VALUES]
        return _Moment(values=self.values[chunk], scales=scales)


class Adam:
    """Adam (Kingma and Ba, arXiv 1412.6980), without weight decay; updates tensors one by one.

        m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g^2
        w = w - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Moments of 32 bits are float32 (float64 for float64 tensors). Those of 8 bits are codes with a
    scale per block of values, as Dettmers et al. have them (arXiv 2110.02861), in a code of our
    own, which needs no search: see _Code. Codes and bfloat16 weights are rounded at random, up or
    down so that the mean stays: to the nearest, a change of less than half a step would be lost
    every time, and (1 - beta2) v is always less. The noise comes from (seed, step, number of the
    tensor) alone, on each kind of device in its own way.

    parameters are on one device, and so are moments and buffers.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        state_bits: OptimizerBits = 32,
        seed: int = 0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self._parameters = dict(parameters)
        self._numbers = {name: number for number, name in enumerate(parameters)}
        self._seed = seed
        self._beta1, self._beta2 = betas
        self._eps = eps
        self._step = torch.zeros((), dtype=torch.int64)
        self._learning_rate = 0.0
        self._due: set[str] = set()
        (device,) = {parameter.device for parameter in self._parameters.values()}
        self._generator = torch.Generator(device)
        self._first: dict[str, _Moment] = {}
        self._second: dict[str, _Moment] = {}
        for name, parameter in self._parameters.items():
            size = parameter.numel()
            wide = torch.promote_types(parameter.dtype, torch.float32)
            coded = has_8bit_moments(size, state_bits)
            assert not coded or wide == torch.float32, "codes stand for float32"
            self._first[name] = _Moment.zero(size, torch.int8 if coded else wide, device)
            self._second[name] = _Moment.zero(size, torch.uint8 if coded else wide, device)

    def begin_step(self, learning_rate: float) -> None:
        """Count a step, in which every parameter gets exactly one update."""
        assert not self._due, f"the step before left out {sorted(self._due)}"
        self._step += 1
        self._learning_rate = learning_rate
        self._due = set(self._parameters)

    @torch.no_grad()
    def update(self, name: str, gradient: Tensor) -> None:
        """Change the parameter in place; the gradient is used up.

        gradient: of the parameter's shape and memory format. Float32 serves bfloat16 too.
        """
        self._due.remove(name)
        values, gradients = _flat_alike(self._parameters[name], gradient)
        first, second = self._first[name], self._second[name]
        rows = _Rows(values, gradients, coded=first.scales is not None)
        if rows.words is not None:
            self._seed_noise(name)
        for start in range(0, len(values), ADAM_CHUNK_VALUES):
            chunk = slice(start, start + ADAM_CHUNK_VALUES)
            self._update_chunk(
                values[chunk], gradients[chunk], first.part(chunk), second.part(chunk), rows
            )

    def _update_chunk(
        self, values: Tensor, gradients: Tensor, first: _Moment, second: _Moment, rows: _Rows
    ) -> None:
        count = len(values)
        gradient = gradients
        if rows.gradient is not None:
            gradient = rows.gradient[:count].copy_(gradients)
        if first.scales is None or second.scales is None:
            self._advance(values, gradient, first.values, second.values, rows)
            return
        # Whole blocks: zeros behind the last value.
        m = _decode_first(first.values, first.scales, rows.first, rows.second)
        v = _decode_second(second.values, second.scales, rows.first)
        self._advance(values, gradient, m[:count], v[:count], rows)
        noise = rows.noise(gradient, self._generator)
        codes = _encode(v, second.scales, noise, _SECOND).clamp_(min=_LEAST_SECOND)
        second.values.copy_(codes[:count])
        noise = rows.noise(gradient, self._generator)
        codes = _encode(torch.abs(m, out=v), first.scales, noise, _FIRST).copysign_(m)
        first.values.copy_(codes[:count])

    def _advance(
        self, values: Tensor, gradient: Tensor, m: Tensor, v: Tensor, rows: _Rows
    ) -> None:
        """The equations, on a chunk; all of one type but values, which may be narrower."""
        weight = values
        if rows.weight is not None:
            weight = rows.weight[: len(values)].copy_(values)
        adam(
            [weight],
            [gradient],
            [m],
            [v],
            [],
            [(self._step - 1.0).to(values.device)],  # counted once more in there
            fused=True,
            amsgrad=False,
            beta1=self._beta1,
            beta2=self._beta2,
            lr=self._learning_rate,
            weight_decay=0.0,
            eps=self._eps,
            maximize=False,
        )
        if rows.weight is not None:
            bits = weight.view(torch.int32)
            bits.add_(rows.noise(gradient.view(torch.int32), self._generator))
            bits.add_(1 << (_NOISE_BITS - 1)).bitwise_and_(-1 << _NOISE_BITS)
            values.copy_(weight)

    def _seed_noise(self, name: str) -> None:
        seeds = np.random.SeedSequence([self._seed, int(self._step), self._numbers[name]])
        self._generator.manual_seed(int(seeds.generate_state(1)[0]))

    def state_tensors(self) -> dict[str, Tensor]:
        """The state itself, not copies, by name: for a checkpoint. Moments are flat."""
        tensors = {"step": self._step}
        for kind, moments in (("first_moment", self._first), ("second_moment", self._second)):
            for name, moment in moments.items():
                tensors[f"{kind}.{name}"] = moment.values
                if moment.scales is not None:
                    tensors[f"{kind}_scales.{name}"] = moment.scales
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what state_tensors gave; other tensors may be among them.

        Raises BundleError where one lacks or is of another shape or type, and restores nothing.
        """
        own = self.state_tensors()
        for name, tensor in own.items():
            if name not in tensors:
                raise BundleError(f"optimizer state lacks {name!r}")
            found = tensors[name]
            if found.shape != tensor.shape or found.dtype != tensor.dtype:
                raise BundleError(
                    f"optimizer state has {tuple(found.shape)} of {found.dtype} for {name!r}, "
                    f"not {tuple(tensor.shape)} of {tensor.dtype}"
                )
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
        self._due = set()


class _Rows:
    """Buffers that the chunks of one update share; None where this tensor needs none."""

    def __init__(self, values: Tensor, gradients: Tensor, *, coded: bool) -> None:
        chunk = min(len(values), ADAM_CHUNK_VALUES)
        length = math.ceil(chunk / MOMENT_BLOCK_VALUES) * MOMENT_BLOCK_VALUES if coded else chunk
        rounded = values.dtype == torch.bfloat16
        dtype = torch.float32 if coded or rounded else values.dtype

        def row(needed: bool) -> Tensor | None:
            return torch.empty(length, dtype=dtype, device=values.device) if needed else None

        self.gradient = row(gradients.dtype != dtype)
        self.weight = row(rounded)
        self.first = row(coded)
        self.second = row(coded)
        self.words = None
        if coded or rounded:
            num_words = math.ceil(length / 4)
            self.words = torch.empty(num_words, dtype=torch.int64, device=values.device)

    def noise(self, out: Tensor, generator: torch.Generator) -> Tensor:
        """Fresh integers from -2^15 to 2^15 - 1, in out."""
        assert self.words is not None
        self.words.random_(-(2**63), None, generator=generator)
        return out.copy_(self.words.view(torch.int16)[: len(out)])


def _decode_first(
    codes: Tensor, scales: Tensor, spare: Tensor | None, out: Tensor | None
) -> Tensor:
    """The first moments that codes stand for, in out; whole blocks of them."""
    assert out is not None
    roots = _roots(codes, scales, spare, _FIRST)
    return torch.square(roots, out=out[: len(roots)]).square_().copysign_(roots)


def _decode_second(codes: Tensor, scales: Tensor, out: Tensor | None) -> Tensor:
    """The second moments that codes stand for, in out; whole blocks of them."""
    return _roots(codes, scales, out, _SECOND).square_().square_().square_()


def _roots(codes: Tensor, scales: Tensor, out: Tensor | None, code: _Code) -> Tensor:
    assert out is not None
    roots = out[: len(scales) * MOMENT_BLOCK_VALUES]
    roots[: len(codes)].copy_(codes)
    if len(codes) < len(roots):
        roots[len(codes) :].zero_()
    roots.view(-1, MOMENT_BLOCK_VALUES).mul_((scales / code.top).unsqueeze(1))
    return roots


def _encode(sizes: Tensor, scales: Tensor, noise: Tensor, code: _Code) -> Tensor:
    """8-bit codes of sizes, still as floats with a fraction to drop, in the memory of sizes.

    sizes: whole blocks, none negative. scales: become each block's largest root. noise: from
    -2^15 to 2^15 - 1, for each value; rounds roots up or down so that their mean is exact.
    """
    for _ in range(code.square_roots):
        sizes.sqrt_()
    blocks = sizes.view(-1, MOMENT_BLOCK_VALUES)
    torch.amax(blocks, 1, out=scales).clamp_(min=_SMALLEST_ROOT)
    blocks.mul_((code.top / scales).unsqueeze(1))
    sizes[: len(noise)].add_(noise, alpha=2.0**-_NOISE_BITS)
    return sizes.add_(0.5).clamp_(0, code.top)


def _flat_alike(parameter: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Both as views of one dimension, in the order of their memory, which must be the same."""
    assert gradient.shape == parameter.shape
    assert gradient.dtype in (parameter.dtype, torch.float32)
    if parameter.is_contiguous() and gradient.is_contiguous():
        return parameter.view(-1), gradient.view(-1)
    assert parameter.dim() == 4, "neither contiguous nor channels last"
    return parameter.permute(0, 2, 3, 1).view(-1), gradient.permute(0, 2, 3, 1).view(-1)
