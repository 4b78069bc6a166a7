"""What users send, over HTTP and from the command line alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from search.space.bounds import Bounds
from search.space.families import Recipe
from service.contract.amounts import Count, Duration, Size
from service.contract.described import Described
from service.contract.status import JsonObject, Priority
from service.settings import AUTO_SUPERNET
from tinytl.description.class_weights import ClassWeights
from tinytl.description.method import Method

DEFAULT_TRIALS = 16
MOST_TRIALS = 10_000


def _check_line(given: str) -> str:
    if any(unicodedata.category(character) == "Cc" for character in given):
        raise ValueError("expected one line of text, without control characters")
    return given


SamplerName = Literal["predictor", "tpe", "nsga2", "gp", "random"]
"""Those of search.study.optuna_trials, which the web process does not import."""

Line = Annotated[str, AfterValidator(_check_line)]
"""Text that every database can hold and every log can show."""


FitChoice = Literal["auto", "crop", "pad", "squash"]


class JobSettings(Described):
    """How a job is carried out. The same settings on the same data give the same result, as long
    as nothing of earlier jobs is used again and no time is limited."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int = Field(default=DEFAULT_TRIALS, ge=1, le=MOST_TRIALS)
    """Candidates that the search scores, at most; with a time limit and no number, 10000."""
    sampler: SamplerName = "predictor"
    """Who proposes candidates: a predictor of accuracy that knows the memory of each, or one of
    Optuna's samplers."""
    time_limit_seconds: Duration | None = None
    """Of the search: once it is over, no more candidates are proposed."""
    mac_limit: Count | None = None
    """Most multiply-accumulates of an image's forward pass; null is no limit."""
    patience: int = Field(default=64, ge=1, le=MOST_TRIALS)
    """The search ends when so many candidates in a row were no better, for their memory, than
    those before."""
    race: bool = True
    """Whether a candidate is given up as soon as one of no more memory is better beyond doubt."""
    reuse: bool = True
    """Whether what an earlier job has adapted to the same data in the same way is used again,
    with its scores, which the search then begins with."""
    epochs: int | None = Field(default=None, ge=1, le=1_000)
    """Of the final training, on the device's terms; null: as many as the supernet needs for
    as many images."""
    adapt_steps: int | None = Field(default=None, ge=1, le=1_000_000)
    """Of the supernet's adaptation to the dataset, before the search; null: as for epochs."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of all that is drawn at random."""
    batch_size: int = Field(default=8, ge=1, le=1_024)
    """Images between two updates in the final training; a plan may look at fewer at once."""
    resolutions: Annotated[tuple[int, ...], Field(min_length=1, max_length=32)] | None = None
    """Image sides that may be chosen, in pixels, rising; null: the supernet's own."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Null: the method's own, or less where the supernet's features ask for that."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Share of each label that is spread over all classes."""
    horizontal_flip: bool = True
    """Whether a mirrored image shows the same class; false for text and digits. Training then
    mirrors images at random, and scoring judges each together with its mirror image."""
    model_size_limit: Size | None = None
    """Most bytes that the values of the delivered network may take, as the bundle stores them.
    Null: no limit."""
    inference_memory_limit: Size | None = None
    """What classifying an image on the device may take: the whole process that runs the export in
    8 bits with onnxruntime, Python included, as predicted. Null: no limit."""
    device: Line | None = Field(default=None, max_length=64)
    """Id of the device whose memory is the limit, where none is given: see GET /devices."""
    class_weights: ClassWeights = "auto"
    """Whether the final training looks at images of every class as often ("balanced") or at every
    image ("none"); "auto" balances where one class has three times the images of another."""
    fit: FitChoice = "auto"
    """How a picture becomes a square: crop keeps its centre, pad all of it on a plain ground,
    squash all of it out of proportion; auto is what the dataset's report names."""
    refit: bool = True
    """Whether the final training sees the validation images too, once they have chosen what is
    trained."""
    min_crop_scale: float = Field(default=0.5, gt=0, le=1)
    """Smallest part of an image's area that a random training crop shows."""

    @classmethod
    def recorded(cls, settings: JsonObject) -> Self:
        """Of a job's row, as the version that made the job meant them: before there was a choice,
        classes were not weighted, pictures were cropped, and validation images kept apart."""
        earlier = {"class_weights": "none", "fit": "crop", "refit": False}
        return cls.model_validate({**earlier, **settings})

    def adapt_steps_by(self, recipe: Recipe) -> int:
        return self.adapt_steps or recipe.adapt_steps

    def epochs_by(self, recipe: Recipe, num_train: int, num_val: int) -> int:
        return self.epochs or recipe.epochs(num_train + self.refit * num_val)

    @property
    def bounds(self) -> Bounds:
        """What the delivered network may take beside its training."""
        return Bounds(
            model_bytes=self.model_size_limit, inference_bytes=self.inference_memory_limit
        )

    @model_validator(mode="before")
    @classmethod
    def _fill_trials(cls, given: Any) -> Any:
        is_timed = isinstance(given, Mapping) and given.get("time_limit_seconds") is not None
        return {"trials": MOST_TRIALS, **given} if is_timed else given


class MethodChoice(StrEnum):
    """What a job trains: a method, or the better one for each candidate of its search."""

    AUTO = "auto"
    HEAD = Method.HEAD.value
    BIAS = Method.BIAS.value
    LITE_RESIDUAL = Method.LITE_RESIDUAL.value
    LITE_RESIDUAL_BIAS = Method.LITE_RESIDUAL_BIAS.value
    NORM_HEAD = Method.NORM_HEAD.value
    FULL = Method.FULL.value

    @property
    def method(self) -> Method:
        """What the supernet is adapted with; candidates of "auto" may do without lite residuals
        (search.space.lite_residual_sizes.method_of)."""
        return Method.LITE_RESIDUAL_BIAS if self is MethodChoice.AUTO else Method(self.value)

    def describe(self, chosen: Method) -> str:
        """The method of a finished job, and who chose it."""
        return (
            f"{chosen.value} (the search's choice)" if self is MethodChoice.AUTO else chosen.value
        )


class JobRequest(Described):
    """The body of POST /jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Line = Field(max_length=100)
    """Id of an uploaded dataset."""
    memory_limit: Size = 0
    """What training on the device may take at its worst moment, everything counted; may be left
    out where the settings name a device."""
    name: Line = Field(default="", max_length=200)
    """Empty: one of its own, after its id."""
    method: MethodChoice = MethodChoice.AUTO
    """What is trained; the classifier always is. "auto" searches candidates of two methods, bias
    and lite_residual+bias, and trains the chosen one with its own."""
    supernet: Line = Field(default=AUTO_SUPERNET, min_length=1, max_length=500)
    """"auto": those that come with tinyfit and fit the limits are looked at with the data, and the
    one whose features tell the classes apart best is taken."""
    priority: Priority = Priority.NORMAL
    """Which queued jobs are taken first; one that runs is not interrupted."""
    webhook: Line | None = Field(default=None, min_length=1, max_length=2_000)
    """A URL that the job is posted to when it has ended, signed as Standard Webhooks says."""
    settings: JobSettings = JobSettings()

    @model_validator(mode="after")
    def _check_limit(self) -> Self:
        if not self.memory_limit and self.settings.device is None:
            raise ValueError("memory_limit must be given, or a device in settings")
        return self


class JobChange(Described):
    """The body of PATCH /jobs/{id}."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    priority: Priority
