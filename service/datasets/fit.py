"""Which fit a dataset gets where none is asked for, and why."""

from __future__ import annotations

from service.contract.requests import JobRequest
from service.record.db.models import Dataset
from tinytl.squares import Fit

MOST_CROP_LOSS = 0.3
"""Mean share of the pictures' area: photos of 4:3 lose 25 %, of 3:2 33 %, of 16:9 44 %. By what
docs/results.md has, a crop is as good or better up to 25 %, and squashing at 44 %."""
_AUTO, _BEFORE = "auto", "crop"


def choose_fit(crop_loss: float) -> Fit:
    """crop_loss: the share of a picture's area that its centre square leaves out, on average."""
    return "crop" if crop_loss <= MOST_CROP_LOSS else "squash"


def crop_loss(width: int, height: int) -> float:
    return 1 - min(width, height) / max(width, height)


def with_fit(request: JobRequest, dataset: Dataset) -> JobRequest:
    """The request with the fit that its dataset's report names, where it leaves that open; crop
    for a dataset that was reported before there was a choice."""
    if request.settings.fit != _AUTO:
        return request
    fit = (dataset.report or {}).get("fit") or _BEFORE
    settings = request.settings.model_copy(update={"fit": fit})
    return request.model_copy(update={"settings": settings})
