"""One training step: forward and backward of a batch, as its plan says.

A network's parts form stages, one for each size that maps have; a plan joins them to stretches.
A stretch takes the batch in micro-batches of its own size, each through all of its parts before
the next: early stages, whose maps are large, an image at a time; late ones, whose weights are
large, the whole batch at once. Between stretches the whole batch's map is held. Images are
independent, as nothing uses batch statistics, so the result is the whole batch's gradient.

Backward goes through the stretches in reverse. Of a stretch but the last, either what backward
needs has been kept since forward, or the stretch's input, and forward is run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from tinytl.description.plan import Plan
from tinytl.engine.blocks import Part
from tinytl.engine.gradients import Finish, Gradients, needed
from tinytl.engine.layers import Tape
from tinytl.engine.network import Network
from tinytl.engine.ops.convolution import empty_channels_last
from tinytl.errors import DivergenceError


@dataclass(frozen=True, kw_only=True)
class Batch:
    """images: (B, 3, H, W), uint8 or normalized float; labels: (B,). All on the network's device.

    keep: (B, F), the features' dropout mask, scaled by 1 / (1 - rate); None keeps all.
    """

    images: Tensor
    labels: Tensor
    keep: Tensor | None = None
    label_smoothing: float = 0.0


@torch.no_grad()
def run_step(network: Network, batch: Batch, plan: Plan, finish: Finish) -> Tensor:
    """Hand the gradient of the batch's mean loss to finish, parameter by parameter.

    finish may change the parameter at once: what is still needed of it has been used. Returns
    each image's cross entropy (B,). Raises DivergenceError where one is not finite; finish has
    then not been called.
    """
    *early, last = _stretch_runs(network, plan, Gradients(finish))
    maps = [batch.images]
    for run in early:
        maps.append(run.forward(maps.pop()))
    losses, grad = last.turn(maps.pop(), _Head(network, batch))
    grads = [grad]
    del grad
    for run in reversed(early):
        grads.append(run.backward(grads.pop()))
    return losses


class _Head:
    """Dropout, classifier and loss."""

    def __init__(self, network: Network, batch: Batch) -> None:
        self._network = network
        self._batch = batch

    def turn(self, features: Tensor, images: slice, gradients: Gradients) -> tuple[Tensor, Tensor]:
        """Losses (n,) of these images' features (n, F), and the features' gradient."""
        batch, linear = self._batch, self._network.classifier
        keep = None if batch.keep is None else batch.keep[images]
        if keep is not None:
            features = features * keep
        logits = self._network.classify(features)
        labels, smoothing = batch.labels[images], batch.label_smoothing
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        if not losses.isfinite().all():
            raise DivergenceError(f"the loss became {losses.sum().item()}")
        # d loss / d logits = softmax(logits) - the smoothed label, over the whole batch's images
        grad = F.softmax(logits, 1).sub_(smoothing / logits.shape[1])
        grad[torch.arange(len(labels), device=grad.device), labels] -= 1 - smoothing
        grad.div_(len(batch.labels))
        grad_features = grad @ linear.weight.to(grad.dtype)
        if keep is not None:
            grad_features.mul_(keep)
        gradients.add(linear.weight, grad.t() @ features)
        gradients.add(linear.bias, grad.sum(0))
        return losses, grad_features


@dataclass(kw_only=True)
class _StretchRun:
    """A stretch's way through one step.

    learns_from: its first part that backward reaches, which hands a gradient on where
    needs_input says so.
    """

    parts: Sequence[Part]
    micro_batch_size: int
    recomputes: bool
    learns_from: int
    needs_input: bool
    gradients: Gradients
    _input: Tensor | None = None
    _tapes: list[Tape] = field(default_factory=list)

    @property
    def _learns(self) -> bool:
        return self.learns_from < len(self.parts)

    def forward(self, x: Tensor) -> Tensor:
        """The whole batch's output; what backward needs is kept."""
        if self._learns and self.recomputes:
            self._input = x
        y = None
        for images in self._micro_batches(len(x)):
            tape: Tape | None = None
            if self._learns and not self.recomputes:
                tape = []
                self._tapes.append(tape)
            y = _placed(y, self._run_forward(x[images], tape), images, len(x))
        assert y is not None
        return y

    def turn(self, x: Tensor, head: _Head) -> tuple[Tensor, Tensor | None]:
        """The last stretch: forward and backward of each micro-batch. Losses, gradient of x."""
        losses, grad_x = [], x
        for images in self._micro_batches(len(x)):
            some_losses, part = self._turn(x[images], images, head, images.stop == len(x))
            losses.append(some_losses)
            if part is not None:  # it takes the place of the images that are done
                grad_x = _placed(grad_x, part, images, len(x))
            del part
        return torch.cat(losses), grad_x if self.needs_input else None

    def _turn(
        self, x: Tensor, images: slice, head: _Head, completes: bool
    ) -> tuple[Tensor, Tensor | None]:
        self.gradients.completes = completes
        tape: Tape = []
        features = self._run_forward(x, tape)
        losses, grad = head.turn(features, images, self.gradients)
        return losses, self._run_backward(grad, tape) if self._learns else None

    def backward(self, grad: Tensor | None) -> Tensor | None:
        """From the gradient of forward's output to that of its input, where it is needed."""
        if grad is None or not self._learns:
            return None
        x, self._input = self._input, None
        grad_x = x if self.needs_input else None
        for images in self._micro_batches(len(grad)):
            self.gradients.completes = images.stop == len(grad)
            tape: Tape = []
            if x is None:
                tape = self._tapes.pop(0)
            else:
                self._run_forward(x[images], tape)
            part = self._run_backward(grad[images], tape)
            if part is not None:
                grad_x = _placed(grad_x, part, images, len(grad))
            del part
        return grad_x

    def _micro_batches(self, num_images: int) -> Iterator[slice]:
        for start in range(0, num_images, self.micro_batch_size):
            yield slice(start, min(start + self.micro_batch_size, num_images))

    def _run_forward(self, x: Tensor, tape: Tape | None) -> Tensor:
        maps = [x]  # references are handed on, so that a map is freed once it is used
        del x
        for position, part in enumerate(self.parts):
            maps.append(part.forward(maps.pop(), tape if position >= self.learns_from else None))
        return maps.pop()

    def _run_backward(self, grad: Tensor, tape: Tape) -> Tensor | None:
        grads: list[Tensor | None] = [grad]
        del grad
        for position in reversed(range(self.learns_from, len(self.parts))):
            needs_input = self.needs_input or position > self.learns_from
            backward = self.parts[position].backward
            grads.append(
                backward(needed(grads.pop()), tape, self.gradients, needs_input=needs_input)
            )
        return grads.pop()


def _placed(whole: Tensor | None, part: Tensor, images: slice, num_images: int) -> Tensor:
    """The whole batch's map with this part of it written."""
    if len(part) == num_images:
        return part
    if whole is None:
        whole = empty_channels_last(num_images, part.shape[1], part.shape[2:], part)
    whole[images] = part
    return whole


def _stretch_runs(network: Network, plan: Plan, gradients: Gradients) -> list[_StretchRun]:
    parts = network.parts
    first = next((i for i, part in enumerate(parts) if part.learns), len(parts))
    bounds = pairwise(plan.part_starts(network.config.part_stages))
    return [
        _StretchRun(
            parts=parts[start:stop],
            micro_batch_size=stretch.micro_batch_size,
            recomputes=stretch.recomputes,
            learns_from=max(first - start, 0),
            needs_input=first < start,
            gradients=gradients,
        )
        for stretch, (start, stop) in zip(plan.stretches, bounds, strict=True)
    ]
