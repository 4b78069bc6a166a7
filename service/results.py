"""What a finished job delivers, as users read it."""

from __future__ import annotations

from service.described import Described
from service.record.models import JsonObject


class CheckpointView(Described):
    """The bundle of a finished job."""

    url: str
    bytes: int
    sha256: str


class MemoryView(Described):
    """What the delivered training takes at its peak, in bytes."""

    breakdown_bytes: dict[str, int]
    """The predicted peak, by part; sums to `predicted_peak_bytes`."""
    storage_peak_bytes: int
    """Measured: live tensors, temporaries inside operators excepted."""


class GainView(Described):
    """Test accuracy less that of head-only training, on the same images."""

    points: float
    """The difference, -1 to 1."""
    standard_error: float
    is_within_noise: bool
    """Whether the difference may be none at all."""


class ChoiceView(Described):
    """How sure the choice among the scored candidates is, had there been other validation
    images."""

    num_compared: int | None = None
    """Those within the limits that have seen all validation images, the chosen one among them;
    null for a job of an earlier version."""
    standard_error: float
    """Of the chosen one's validation accuracy in the search."""
    probability_best: float
    num_rivals: int
    """Others that are not worse beyond noise."""


class EndView(Described):
    """A candidate at an end of the search space, with its lean plan."""

    peak_bytes: int
    macs: int
    resolution: int


class FrontPoint(Described):
    """A candidate that is better than all others of no more memory: more accurate, or as accurate
    at a lower loss."""

    trial: int
    peak_bytes: int
    """Predicted, with `plan`, its lean plan."""
    plan: JsonObject
    slowdown: float
    """Estimated time of a training step, over that with the fastest plan of all."""
    macs: int | None
    resolution: int
    lite_residual: JsonObject
    subnet: JsonObject
    validation_accuracy: float
    standard_error: float | None
    """Of that accuracy; null for a job of an earlier version."""
    is_chosen: bool
    """Whether it is the one to be trained, or would be if the search ended now."""


class FrontView(Described):
    """What accuracy a job's search has found from how much memory on."""

    limit_bytes: int
    mac_limit: int | None
    smallest: EndView
    """The candidate of the least memory."""
    largest: EndView
    points: list[FrontPoint]
    """By rising memory, and so by rising accuracy."""


class JobResult(Described):
    """What a finished job delivers. Bytes are peaks of a whole training step."""

    subnet: JsonObject
    resolution: int
    plan: JsonObject
    predicted_peak_bytes: int
    measured_peak_bytes: int
    validation_accuracy: float
    test_accuracy: float
    head_only_test_accuracy: float
    """Of the same subnet with nothing trained but its head, for as many epochs."""
    macs: int | None = None
    """Multiply-accumulates of an image's forward pass. Null, here and below, for a job of an
    earlier version."""
    gain: GainView | None = None
    choice: ChoiceView | None = None
    trials: int
    """Candidates that the search scored."""
    reused_trials: int = 0
    """Beside these, those that earlier jobs had scored."""
    memory: MemoryView | None = None
    """Null for a job of an earlier version."""
    checkpoint: CheckpointView | None = None
