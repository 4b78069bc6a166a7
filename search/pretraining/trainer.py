"""One step of pretraining: the sandwich rule with distillation from the largest subnet.

Each step trains the largest subnet on the labels, and the smallest and some random ones on what
the largest says (Once-for-All, arXiv 1908.09791, section 3.3, and the sandwich rule of arXiv
1903.05134, section 3.1, in place of shrinking phase by phase).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from search.elastic.supernet import Supernet
from search.errors import PretrainError
from search.pretraining.images import Crops, TrainingImages, epoch_order
from search.pretraining.settings import PretrainSettings
from search.space.architecture import Subnet
from search.space.candidates import sample_subnet
from search.space.lite_residual_sizes import SIZES
from tinytl.description.config import LiteResidualSize

_MOMENTUM = 0.9


class _Whole(nn.Module):
    """A supernet and its lite residual modules as one module, for DistributedDataParallel."""

    def __init__(self, supernet: Supernet) -> None:
        super().__init__()
        self.network = supernet.network
        self.lite_residuals = nn.ModuleDict(
            {str(index): module for index, module in supernet.lite_residuals.items()}
        )
        self._supernet = supernet

    def forward(self, images: Tensor, subnet: Subnet, size: LiteResidualSize | None) -> Tensor:
        modules = None if size is None else self._supernet.lite_residuals
        return self._supernet.forward(subnet, images, modules, size)


class Trainer:
    """A supernet in training: its weights, its optimizer, its images.

    Its process is the rank-th of world_size, which share each batch; all take the same subnets.
    """

    def __init__(
        self,
        supernet: Supernet,
        images: TrainingImages,
        settings: PretrainSettings,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.supernet = supernet
        self.settings = settings
        self.steps_per_epoch = settings.steps_per_epoch(len(images), world_size)
        self.num_steps = settings.epochs * self.steps_per_epoch
        share = settings.batch_size // world_size
        self._own = slice(rank * share, (rank + 1) * share)
        self._images = images
        self._module: Any = _Whole(supernet)
        self._device = next(self._module.parameters()).device
        self._parameters = dict(self._module.named_parameters())
        _learn(self._module)
        if world_size > 1:
            self._module = DistributedDataParallel(
                self._module, find_unused_parameters=True, forward_sync_buffers=False
            )
        decayed = [p for p in self._parameters.values() if p.dim() > 1]
        others = [p for p in self._parameters.values() if p.dim() <= 1]
        self._optimizer = torch.optim.SGD(
            [
                {"params": decayed, "weight_decay": settings.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            momentum=_MOMENTUM,
            nesterov=True,
        )

    def train_step(self, step: int) -> dict[str, Tensor]:
        """One update. Its random choices derive from (seed, step). Returns the losses by name."""
        settings = self.settings
        rng = random.Random(f"pretrain {settings.seed} {step}")
        images, labels = self._batch(step, rng.choice(settings.resolutions))
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learning_rate_at(step, self.num_steps)
        self._optimizer.zero_grad(set_to_none=True)
        losses = {}
        spec = self.supernet.spec
        students = [spec.smallest]
        students += [sample_subnet(spec, rng) for _ in range(settings.num_random_subnets)]
        largest = self._logits(images, spec.largest, rng, last=False)
        losses["largest"] = F.cross_entropy(
            largest, labels, label_smoothing=settings.label_smoothing
        )
        losses["largest"].backward()  # type: ignore[no-untyped-call]
        soft_labels = largest.detach().softmax(1)
        for number, student in enumerate(students):
            last = number == len(students) - 1
            loss = F.cross_entropy(self._logits(images, student, rng, last=last), soft_labels)
            loss.backward()  # type: ignore[no-untyped-call]
            losses["smallest" if number == 0 else f"random {number}"] = loss
        self._optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def _batch(self, step: int, resolution: int) -> tuple[Tensor, Tensor]:
        settings = self.settings
        epoch, place = divmod(step, self.steps_per_epoch)
        order = epoch_order(len(self._images), settings.seed, epoch)
        first = place * settings.batch_size
        crops = Crops.draw(
            settings.batch_size,
            np.random.default_rng([settings.seed, epoch, place]),
            min_crop_scale=settings.min_crop_scale,
            horizontal_flip=settings.horizontal_flip,
            brightness=settings.brightness,
        )
        indices = order[first : first + settings.batch_size]
        return self._images.batch(indices[self._own], crops.part(self._own), resolution)

    def _logits(self, images: Tensor, subnet: Subnet, rng: random.Random, *, last: bool) -> Tensor:
        """Gradients are exchanged between processes after the last subnet of a step alone."""
        size = rng.choice(SIZES)
        with_modules = rng.random() < self.settings.lite_residual_share
        parallel = isinstance(self._module, DistributedDataParallel)
        on_gpu = self._device.type == "cuda"
        with (
            self._module.no_sync() if parallel and not last else nullcontext(),
            torch.autocast(self._device.type, torch.bfloat16, enabled=on_gpu),
        ):
            logits: Tensor = self._module(images, subnet, size if with_modules else None)
        return logits.float()

    def state(self) -> dict[str, Tensor]:
        """All that training goes on from, by name, for write_tensors."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._parameters.items():
            tensors[f"parameter.{name}"] = parameter
            state = self._optimizer.state.get(parameter, {})
            if state.get("momentum_buffer") is not None:
                tensors[f"momentum.{name}"] = state["momentum_buffer"]
        return tensors

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what state gave. Raises PretrainError where a tensor lacks or differs."""
        for name, parameter in self._parameters.items():
            saved = tensors.get(f"parameter.{name}")
            if saved is None or saved.shape != parameter.shape:
                raise PretrainError(f"the checkpoint lacks the tensor {name!r}")
            parameter.copy_(saved)
            if f"momentum.{name}" in tensors:
                momentum = tensors[f"momentum.{name}"].to(self._device)
                self._optimizer.state[parameter] = {"momentum_buffer": momentum}


def _learn(module: nn.Module) -> None:
    """Everything is trained; batch norms use the batch's statistics and keep none."""
    module.train().requires_grad_(True)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.track_running_stats = False
