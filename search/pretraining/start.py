"""What pretraining starts from: random weights, or those of a supernet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from search.elastic.supernet import Supernet, untrained_supernet
from search.errors import PretrainError
from search.pretraining.conversion import with_group_norm
from search.pretraining.settings import PretrainSettings
from search.space.architecture import SupernetSpec


def initial_supernet(
    settings: PretrainSettings,
    num_classes: int,
    start: Supernet | None,
    images: Callable[[], Tensor],
) -> Supernet:
    """The supernet before the first step.

    Of start, whose network is taken over, the head stays where it has as many classes, and lite
    residual modules where it has them; batch norms become group norms where the architecture
    asks for them, by the images (N, 3, H, W), normalized. Everything else is drawn from the seed.
    Raises PretrainError where start is of another architecture.
    """
    spec = SupernetSpec.parse(settings.architecture)
    fresh = untrained_supernet(
        spec,
        num_classes,
        lite_residuals=settings.trains_lite_residuals,
        generator=torch.Generator().manual_seed(settings.seed),
    )
    if start is None:
        return fresh
    is_converted = (start.spec.norm.kind, spec.norm.kind) == ("batch", "group")
    if (
        replace(start.spec, id=spec.id, norm=spec.norm if is_converted else start.spec.norm)
        != spec
    ):
        raise PretrainError(f"{start.spec.id} is of another architecture than {spec.id}")
    if is_converted:
        start = with_group_norm(start, spec, images())
    network = start.network
    if start.num_classes != num_classes:
        network.classifier = fresh.network.classifier
    modules = fresh.lite_residuals
    if settings.trains_lite_residuals and start.lite_residuals:
        modules = start.lite_residuals
    return Supernet(spec, network, num_classes, modules)
