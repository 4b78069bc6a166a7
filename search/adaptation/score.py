"""The accuracy that a trial is judged by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from search.adaptation.adapted import HEAD_IMAGES, AdaptedSupernet
from search.adaptation.ridge import fit_ridge
from search.adaptation.views import evaluation_batch, features_of, spread_evenly
from search.errors import SearchError
from search.space.candidates import Candidate
from search.statistics import racing
from search.statistics.certainty import Correct
from tinytl.engine.network import Network, build_network
from tinytl.errors import CancelledError
from tinytl.training.data import ImageSplit, ImageStore

_EVALUATION_BATCH = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Score:
    """What a trial found on the validation images that it looked at.

    accuracy: top-1, 0 to 1, on these num_images. loss: mean cross-entropy, in nats; infinite where
    the network's outputs are no numbers, and where it has a head of its own: the scale of a ridge
    regression's outputs is by chance, so its loss tells no two candidates apart. correct: which of
    the images were right, in the order of looking (search.statistics.racing.image_order).
    is_complete: all were looked at; else the candidate was given up as hopeless.
    """

    accuracy: float
    loss: float
    num_images: int
    correct: Correct
    is_complete: bool


def score(
    adapted: AdaptedSupernet,
    candidate: Candidate,
    store: ImageStore,
    *,
    seed: int = 0,
    horizontal_flip: bool = True,
    rivals: Sequence[Correct] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Score:
    """Score a candidate on the validation split with weights as they are delivered: batch norm
    statistics found and folded in, frozen weights in 8 bits. It runs on the supernet's device.
    Raises CancelledError.

    Where subnets have heads of their own, that is a ridge regression on training and validation
    images together, which tells each validation image by all others: no mirror images then, and
    nothing is given up before all are seen.

    horizontal_flip: whether a mirrored image shows the same class. Each image is then judged
    together with its mirror image, by the mean of the probabilities: that changes less than the
    image alone from one adaptation of the supernet to the next (benchmarks.accuracy.ranking).
    rivals: what candidates that take no more memory have right of all images, in the order of
    the same seed. The candidate is given up where it is hopeless against the best of them.
    """
    split = store.split("val")
    for each in rivals:
        if len(each) != len(split):
            raise SearchError(
                f"a rival must have seen all {len(split)} validation images but saw {len(each)}"
            )
    order = racing.image_order(len(split), seed)
    own_head = adapted.has_own_heads
    config, weights = adapted.subnet_weights(candidate, store, own_head=not own_head)
    network = build_network(config, adapted.method_of(candidate), weights).to(adapted.device)
    if own_head:
        return _score_with_own_head(network, candidate, store, order.tolist(), should_stop)
    rival = max(rivals, key=np.count_nonzero, default=None)
    if len(split) < racing.MIN_IMAGES:
        rival = None
    chunk = racing.chunk_size(len(split))
    looks = -(-len(split) // chunk) - 1  # none after the last chunk
    correct = np.empty(0, dtype=np.bool_)
    losses = np.empty(0)
    for start in range(0, len(split), chunk):
        indices = order[start : start + chunk].tolist()
        found = _log_probabilities(
            network, split, indices, candidate.resolution, horizontal_flip, should_stop
        )
        labels = split.labels_of(indices)
        correct = np.concatenate((correct, (found.argmax(1) == labels).numpy()))
        losses = np.concatenate((losses, F.nll_loss(found, labels, reduction="none").numpy()))
        is_complete = len(correct) == len(split)
        if is_complete or (rival is not None and racing.is_hopeless(correct, rival, looks=looks)):
            break
    return Score(
        accuracy=float(correct.mean()),
        loss=float(np.nan_to_num(losses.mean(), nan=np.inf, posinf=np.inf)),
        num_images=len(correct),
        correct=correct,
        is_complete=is_complete,
    )


def _score_with_own_head(
    network: Network,
    candidate: Candidate,
    store: ImageStore,
    order: Sequence[int],
    should_stop: Callable[[], bool],
) -> Score:
    train, val = store.split("train"), store.split("val")
    some = spread_evenly(min(HEAD_IMAGES, len(train)), len(train))
    features, labels = features_of(
        network, [(train, some), (val, order)], candidate.resolution, should_stop=should_stop
    )
    told = fit_ridge(features, labels, store.num_classes).left_out.argmax(1)
    correct = (told == labels)[len(some) :].numpy()
    return Score(
        accuracy=float(correct.mean()),
        loss=math.inf,
        num_images=len(val),
        correct=correct,
        is_complete=True,
    )


@torch.no_grad()
def _log_probabilities(
    network: Network,
    split: ImageSplit,
    indices: Sequence[int],
    resolution: int,
    horizontal_flip: bool,
    should_stop: Callable[[], bool],
) -> Tensor:
    """Of each class for each image (images, classes), on the CPU."""
    found = []
    for start in range(0, len(indices), _EVALUATION_BATCH):
        if should_stop():
            raise CancelledError("evaluation was cancelled")
        part = indices[start : start + _EVALUATION_BATCH]
        images = evaluation_batch(split, part, resolution).to(network.device)
        of_part = network(images).log_softmax(1)
        if horizontal_flip:
            mirrored = network(images.flip(3)).log_softmax(1)
            of_part = torch.logaddexp(of_part, mirrored) - math.log(2)
        found.append(of_part.cpu())
    return torch.cat(found)
