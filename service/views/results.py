"""What a finished job delivers, as users read it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from service.contract.described import Described
from service.contract.status import JsonObject
from tinytl.description.method import Method, PeakMeaning

Trainer = Literal["native", "torch"]
"""Of the device, as a process on this machine, or the torch engine."""


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
    method: Method
    lite_residual: JsonObject | None
    """Size of the lite residual modules; null where the method has none."""
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


class OnnxView(Described):
    """A model of the export, and how it compares with the trained network on the same images. What
    classifying with it takes is in the export's model.json."""

    bytes: int
    num_images: int
    num_same_class: int
    largest_difference: float
    """Of any class's probability on any image."""


class JobResult(Described):
    """What a finished job delivers."""

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, found: Any) -> Any:
        """Their peaks are torch's."""
        if not isinstance(found, dict):
            return found
        known = {
            f"torch_{name}": found[name]
            for name in ("predicted_peak_bytes", "measured_peak_bytes")
            if name in found
        }
        return known | found

    supernet: str | None = None
    """The one that was searched; null for a job of an earlier version."""
    method: Method
    """The one that the chosen candidate was trained with."""
    subnet: JsonObject
    resolution: int
    plan: JsonObject
    peak_meaning: PeakMeaning = PeakMeaning.TORCH
    """What the two peaks below are those of, which the limit binds."""
    predicted_peak_bytes: int
    measured_peak_bytes: int | None
    """Null where the device trainer could not be built on the server."""
    torch_predicted_peak_bytes: int
    """Of torch's allocator, where the torch engine trains under the same plan."""
    torch_measured_peak_bytes: int
    trained_by: Trainer = "torch"
    """Which trainer trained the checkpoint's network."""
    validation_accuracy: float
    """Of the trained network; where these images were trained on, too (`refit`), of the chosen
    candidate as the search has scored it, before its training."""
    test_accuracy: float
    balanced_accuracy: float | None = None
    """Mean recall of the classes on the test images. Null, here and below, for a job of an earlier
    version."""
    headline: str | None = None
    """The test's result in a sentence that does not hide small classes."""
    headline_accuracy: float | None = None
    """The test accuracy or, where that would hide small classes, the balanced one."""
    head_only_test_accuracy: float
    """Of the same subnet with nothing trained but its head, for as many epochs."""
    macs: int | None = None
    """Multiply-accumulates of an image's forward pass."""
    model_bytes: int | None = None
    """What the network's values take, trained ones in 32 bits."""
    predicted_inference_bytes: int | None = None
    """What a process takes that classifies with the export in 8 bits by onnxruntime, Python and
    all. What one took on the worker's machine is in the export's model.json."""
    gain: GainView | None = None
    choice: ChoiceView | None = None
    trials: int
    """Candidates that the search scored."""
    reused_trials: int = 0
    """Beside these, those that earlier jobs had scored."""
    memory: MemoryView | None = None
    onnx: dict[Literal["float", "int8"], OnnxView] | None = None
    checkpoint: CheckpointView | None = None
