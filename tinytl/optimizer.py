"""Adam for one tensor at a time, with moments in 32 or 8 bits and weights in float32 or bfloat16.

An update consumes the gradient of one tensor, so it can run in the middle of backward and no
tensor's gradient has to wait for the others. What it allocates is in tinytl.optimizer_memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam

from tinytl.errors import BundleError
from tinytl.optimizer_memory import (
    BLOCK_VALUES,
    CHUNK_VALUES,
    OptimizerBits,
    has_8bit_moments,
)

_FIRST_TOP = 127
_SECOND_TOP = 255
_MANTISSA_BITS = 4
_CUT_BITS = 23 - _MANTISSA_BITS
_CODE_OF_ONE = 127 << _MANTISSA_BITS
_NOISE_BITS = 16
_SMALLEST_SCALE = 1e-30  # what it is divided into stays a float32


@dataclass(frozen=True, kw_only=True)
class _Moment:
    """One moment of one tensor, flat, in the order of the tensor's memory.

    values: floats, or 8-bit codes with scales (one per block): int8 of the first moment, uint8
    of the second.
    """

    values: Tensor
    scales: Tensor | None

    @staticmethod
    def zero(num_values: int, dtype: torch.dtype) -> _Moment:
        values = torch.zeros(num_values, dtype=dtype)
        if dtype.is_floating_point:
            return _Moment(values=values, scales=None)
        return _Moment(values=values, scales=torch.zeros(math.ceil(num_values / BLOCK_VALUES)))

    def part(self, chunk: slice) -> _Moment:
        scales = self.scales
        if scales is not None:
            scales = scales[chunk.start // BLOCK_VALUES : chunk.stop // BLOCK_VALUES]
        return _Moment(values=self.values[chunk], scales=scales)


class Adam:
    """Adam (Kingma and Ba, arXiv 1412.6980), without weight decay; updates tensors one by one.

        m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g^2
        w = w - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Moments of 32 bits are float32 (float64 for float64 tensors). Those of 8 bits are codes with a
    scale per block of values, as Dettmers et al. have them (arXiv 2110.02861), in a code of our
    own: see _encode. Codes and bfloat16 weights are rounded at random, up or down so that the mean
    is exact: to the nearest, a change of less than half a step would be lost every time, and
    (1 - beta2) v is always less. The noise comes from (seed, step, number of the tensor) alone.
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
        self._generator = torch.Generator()
        self._first: dict[str, _Moment] = {}
        self._second: dict[str, _Moment] = {}
        for name, parameter in self._parameters.items():
            size = parameter.numel()
            wide = torch.promote_types(parameter.dtype, torch.float32)
            coded = has_8bit_moments(size, state_bits)
            assert not coded or wide == torch.float32, "codes stand for float32"
            self._first[name] = _Moment.zero(size, torch.int8 if coded else wide)
            self._second[name] = _Moment.zero(size, torch.uint8 if coded else wide)

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
        for start in range(0, len(values), CHUNK_VALUES):
            chunk = slice(start, start + CHUNK_VALUES)
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
        m = _decode_signed(first.values, first.scales, rows.first, rows.second)
        v = _decode(second.values, second.scales, rows.second)
        self._advance(values, gradient, m[:count], v[:count], rows)
        noise = rows.noise(gradient, self._generator)
        codes = _encode(v, second.scales, noise, bottom=1, top=_SECOND_TOP)
        second.values.copy_(codes[:count])
        sizes = torch.abs(m, out=v)
        noise = rows.noise(gradient, self._generator)
        codes = _encode(sizes, first.scales, noise, bottom=0, top=_FIRST_TOP)
        negative = m.view(torch.int32).bitwise_right_shift_(31)  # -1 where it is, else 0
        codes.bitwise_xor_(negative).sub_(negative)
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
            [self._step - 1.0],  # counted once more in there
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
            bits = weight.view(torch.int32).add_(rows.noise(gradient, self._generator))
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
        chunk = min(len(values), CHUNK_VALUES)
        length = math.ceil(chunk / BLOCK_VALUES) * BLOCK_VALUES if coded else chunk
        rounded = values.dtype == torch.bfloat16
        dtype = torch.float32 if coded or rounded else values.dtype

        def row(needed: bool) -> Tensor | None:
            return torch.empty(length, dtype=dtype) if needed else None

        self.gradient = row(gradients.dtype != dtype)
        self.weight = row(rounded)
        self.first = row(coded)
        self.second = row(coded)
        self.words = None
        if coded or rounded:
            self.words = torch.empty(math.ceil(length / 4), dtype=torch.int64)

    def noise(self, out: Tensor, generator: torch.Generator) -> Tensor:
        """Fresh integers from -2^15 to 2^15 - 1, in the memory of out (float32), as int32."""
        assert self.words is not None
        self.words.random_(-(2**63), None, generator=generator)
        return out.view(torch.int32).copy_(self.words.view(torch.int16)[: len(out)])


def _decode(codes: Tensor, scales: Tensor, out: Tensor | None) -> Tensor:
    """The second moments that _encode made codes of, in out; whole blocks of them."""
    bits = _widened(codes, scales, out)
    return _numbers_of(bits, scales, _SECOND_TOP)


def _decode_signed(
    codes: Tensor, scales: Tensor, out: Tensor | None, spare: Tensor | None
) -> Tensor:
    """The same for first moments, whose codes have a sign."""
    assert spare is not None
    bits = _widened(codes, scales, out)
    signs = torch.bitwise_and(bits, -1 << 31, out=spare[: len(bits)].view(torch.int32))
    numbers = _numbers_of(bits.abs_(), scales, _FIRST_TOP)
    bits.bitwise_or_(signs)
    return numbers


def _widened(codes: Tensor, scales: Tensor, out: Tensor | None) -> Tensor:
    """Codes as int32 in the memory of out, with zeros up to the last block's end."""
    assert out is not None
    bits = out[: len(scales) * BLOCK_VALUES].view(torch.int32)
    bits[: len(codes)].copy_(codes)
    if len(codes) < len(bits):
        bits[len(codes) :].zero_()
    return bits


def _numbers_of(bits: Tensor, scales: Tensor, top: int) -> Tensor:
    """What codes, none negative, stand for, in their memory."""
    bits.add_(_CODE_OF_ONE).bitwise_left_shift_(_CUT_BITS)
    numbers = bits.view(torch.float32).sub_(1)
    numbers.view(-1, BLOCK_VALUES).mul_((scales / _number_of(top)).unsqueeze(1))
    return numbers


def _encode(numbers: Tensor, scales: Tensor, noise: Tensor, *, bottom: int, top: int) -> Tensor:
    """8-bit codes, as int32 in the memory of numbers; the blocks' largest numbers go to scales.

    numbers: whole blocks, none negative; bottom: the least code. Code q stands for
    scale * (f(q) - 1) / (f(top) - 1), where f(q) is the float32 whose exponent and first 4 bits
    of mantissa, read as an integer, are those of 1.0 plus q: even steps of 1/16 up to 1, from
    there on 16 steps in every doubling.
    So the codes of a block reach over three orders of magnitude (127) and six (255), at about the
    same relative precision. Powers of q, tried too, are as precise on average but spend it on
    the largest numbers, and the update divides by the root of the small ones. To cut a float
    after adding noise to the bits that go rounds it at random with the exact mean.
    """
    blocks = numbers.view(-1, BLOCK_VALUES)
    torch.amax(blocks, 1, out=scales).clamp_(min=_SMALLEST_SCALE)
    blocks.mul_((_number_of(top) / scales).unsqueeze(1)).add_(1)
    bits = numbers.view(torch.int32)
    bits[: len(noise)].add_(noise, alpha=1 << (_CUT_BITS - _NOISE_BITS))
    bits.add_((1 << (_CUT_BITS - 1)) - (_CODE_OF_ONE << _CUT_BITS))
    return bits.bitwise_right_shift_(_CUT_BITS).clamp_(bottom, top)


def _number_of(code: int) -> float:
    """f(code) - 1 of _encode."""
    doublings, sixteenths = divmod(code, 1 << _MANTISSA_BITS)
    return math.ldexp(1 + sixteenths / (1 << _MANTISSA_BITS), doublings) - 1


def _flat_alike(parameter: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Both as views of one dimension, in the order of their memory, which must be the same."""
    assert gradient.shape == parameter.shape
    assert gradient.dtype in (parameter.dtype, torch.float32)
    if parameter.is_contiguous() and gradient.is_contiguous():
        return parameter.view(-1), gradient.view(-1)
    assert parameter.dim() == 4, "neither contiguous nor channels last"
    return parameter.permute(0, 2, 3, 1).view(-1), gradient.permute(0, 2, 3, 1).view(-1)
