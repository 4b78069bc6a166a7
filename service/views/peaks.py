"""Peaks of a delivered training, as people read them."""

from __future__ import annotations

from service.views.results import JobResult
from tinytl.description.method import PeakMeaning
from tinytl.units import format_bytes


def peak_rows(result: JobResult) -> list[tuple[str, str]]:
    """Names and amounts: those that the limit binds, then torch's, where they are others."""
    if result.peak_meaning is PeakMeaning.TORCH:
        assert result.measured_peak_bytes is not None
        return [
            ("training peak, predicted", format_bytes(result.predicted_peak_bytes)),
            ("training peak, measured", format_bytes(result.measured_peak_bytes)),
            ("  which is that of", "torch's allocator"),
        ]
    measured = result.measured_peak_bytes
    return [
        ("whole process, predicted", format_bytes(result.predicted_peak_bytes)),
        (
            "whole process, measured",
            "not here: no C compiler" if measured is None else format_bytes(measured),
        ),
        ("torch's allocator", format_bytes(result.torch_measured_peak_bytes)),
    ]


def trainer_text(result: JobResult) -> str:
    """Which trainer made the checkpoint."""
    return "the device trainer" if result.trained_by == "native" else "the torch engine"


def peaks_text(result: JobResult) -> str:
    """In a line: the peak that the limit binds, what it is that of, and torch's beside."""
    measured, predicted = result.measured_peak_bytes, format_bytes(result.predicted_peak_bytes)
    told = f"{predicted} predicted"
    if measured is not None:
        told = f"{format_bytes(measured)} measured, {told}"
    if result.peak_meaning is PeakMeaning.TORCH:
        return f"{told}, in torch's allocator"
    return (
        f"{told}, the whole process on the device; torch's allocator "
        f"{format_bytes(result.torch_measured_peak_bytes)}"
    )
