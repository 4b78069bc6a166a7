"""Progress and events for people, on standard error."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from service.views.schemas import EventView

_LOG_EVERY_SECONDS = 5.0
_FIRST_ESTIMATE_SECONDS = 3.0
_FIRST_ESTIMATE_SHARE = 0.01


class Meter:
    """Shows a stage, a percentage and the time left: one live line on a terminal, else a line
    now and then.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_live = stream.isatty()
        self._started: tuple[float, float] | None = None
        self._last = ("", float("-inf"))
        self._width = 0

    def show(
        self, stage: str, progress: float, seconds_left: float | None = None, detail: str = ""
    ) -> None:
        """seconds_left: where it is known better than by the pace so far. detail ends the line."""
        now = time.monotonic()
        if self._started is None or progress < self._started[1]:
            self._started = (now, progress)
        if seconds_left is None:
            seconds_left = self._estimate(now, progress)
        line = f"{stage:<12}{progress:4.0%}"
        if seconds_left is not None:
            line += f"   about {format_seconds(seconds_left)} left"
        if detail:
            line += f"   {detail}"
        if self._is_live:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            stage_before, time_before = self._last
            if stage == stage_before and now - time_before < _LOG_EVERY_SECONDS:
                return
            self._stream.write(line + "\n")
            self._last = (stage, now)
        self._stream.flush()

    def note(self, text: str) -> None:
        """A line that stays, above the live one."""
        self.close()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """End the live line."""
        if self._is_live and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0

    def _estimate(self, now: float, progress: float) -> float | None:
        """Seconds left at the pace so far; None as long as that says little."""
        assert self._started is not None
        started, at_start = self._started
        seconds, gained = now - started, progress - at_start
        if seconds < _FIRST_ESTIMATE_SECONDS or gained < _FIRST_ESTIMATE_SHARE or progress >= 1:
            return None
        return seconds * (1 - progress) / gained


def describe_event(event: EventView) -> str:
    """A line on an event: "14:03:10  trial 3: 48 px, 61.2% of the validation images right"."""
    clock = event.created_at.astimezone().strftime("%H:%M:%S")
    return f"{clock}  {printable(_words_of(event))}"


def printable(text: str) -> str:
    """Text of others without what would steer a terminal."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def _words_of(event: EventView) -> str:
    from tinytl.units import format_bytes

    detail = event.detail
    match event.kind.value:
        case "status":
            worker = f" on {detail['worker']}" if detail.get("worker") else ""
            error = f": {detail['error']}" if detail.get("error") else ""
            return f"{detail['status']}{worker}{error}"
        case "request":
            wanted = detail["request"]
            return f"asked to {wanted}" if wanted else "no longer asked to stop"
        case "stage":
            return f"stage {detail['stage']}"
        case "trial":
            is_complete = detail.get("is_complete", True)  # earlier versions gave up none
            images = "the" if is_complete else f"{detail['num_images']}"
            given_up = "" if is_complete else ", given up"
            return (
                f"trial {detail['number'] + 1}: {detail['resolution']} px, "
                f"{detail['validation_accuracy']:.1%} of {images} validation images right, "
                f"peak {format_bytes(detail['predicted_peak_bytes'])}{given_up}"
            )
        case "epoch":
            name = "head only, " if detail["training"] == "head_only" else ""
            accuracy = detail["val_accuracy"]
            right = "" if accuracy is None else f", {accuracy:.1%} of the validation images right"
            return (
                f"{name}epoch {detail['epoch'] + 1} of {detail['num_epochs']}: "
                f"loss {detail['train_loss']:.3f}{right}"
            )
        case _:
            return str(detail.get("message", ""))


def format_seconds(seconds: float) -> str:
    """ "45 s", "3 min 20 s", "2 h 5 min"."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
