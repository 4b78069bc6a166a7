"""Tasks without a network, for tests of pools; other processes import them from here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from service.work.pools.news import Done, News, Step, Tell


@dataclass(frozen=True)
class Parcel:
    """Opens as what it holds."""

    content: Any = None

    def open(self) -> Any:
        return self.content


class OddError(Exception):
    """It can't be pickled."""

    def __init__(self, *, number: int) -> None:
        super().__init__(f"number {number}")


@dataclass(frozen=True)
class Scripted:
    """Does what its name says; `what` of a task that tells is what it found shared."""

    what: str
    folder: Path | None = None

    def run(self, shared: Any, tell: Tell, should_stop: Callable[[], bool]) -> None:
        if self.what == "fail":
            raise ValueError("it went wrong")
        if self.what == "fail oddly":
            raise OddError(number=7)
        if self.what == "die":
            os._exit(9)
        if self.what in ("meet", "stay"):
            assert self.folder is not None
            (self.folder / str(os.getpid())).touch()
            while self.what == "stay" or len(list(self.folder.iterdir())) < 2:
                should_stop()
                time.sleep(0.02)
        if self.what == "step":
            for done in range(1000):
                tell(Step(done + 1, 1000))
        tell(Done((shared, os.getpid())))  # type: ignore[arg-type]

    def after(self, news: News) -> Self:
        return self
