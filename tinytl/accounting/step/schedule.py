"""A whole step's moments, stretch by stretch, as tinytl.engine.step goes through it.

Written once for both who price: for one network amounts of bytes are whole numbers, for many at
once (tinytl.accounting.bulk_memory) arrays of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from tinytl.accounting.layers.ledger import Pass
from tinytl.accounting.step.costs import Sweep

Amount = Any
"""Bytes or the like: a number, or an array with one for each of many networks."""


class Ends(Protocol):
    """x, y: bytes of a micro-batch's map where a stretch begins and ends."""

    x: int
    y: int


class Way(Ends, Protocol):
    """A micro-batch's way through a stretch; see tinytl.accounting.step.runs.Run, which is one."""

    kept: Amount
    gradients: Amount

    def peak(self, sweep: Sweep) -> Amount: ...


EndsT = TypeVar("EndsT", bound=Ends)
WayT = TypeVar("WayT", bound=Way)


class StretchWays(NamedTuple, Generic[EndsT]):
    """A stretch's micro-batches: so many full ones, and a smaller last one if there is a rest.

    keeps_input: a truth value, or one for each of many networks.
    """

    full: EndsT
    num_full: int
    rest: EndsT | None
    recomputes: bool
    learns: bool
    keeps_input: Amount
    needs_input: bool

    @property
    def is_single(self) -> bool:
        return self.num_full == 1 and self.rest is None

    def passes(self, *, tapes_wait: bool = False) -> Iterator[tuple[Pass, EndsT, int]]:
        """The passes that can be the worst, each with the number of those before it.

        The first takes no more than the second, unless more tapes wait while it runs.
        """
        if self.is_single:
            yield "only", self.full, 0
            return
        num_passes = self.num_full + (self.rest is not None)
        if tapes_wait or num_passes == 2:
            yield "first", self.full, 0
        if num_passes > 2:
            yield "middle", self.full, 1
        yield "last", self.rest or self.full, num_passes - 1


class Step(ABC, Generic[WayT]):
    """A whole step, stretch by stretch; what notes its moments is the subclass's.

    Maps of the whole batch between stretches are boundaries. A subclass finds what is held by
    then in self.held, and what is kept in self.kept.
    """

    def __init__(self, stretches: Sequence[StretchWays[WayT]], boundaries: Sequence[int]) -> None:
        """boundaries: bytes of each stretch's input, for the whole batch; images count apart."""
        self.held = 0
        self.kept: Amount = 0
        waiting = []
        *early, last = stretches
        for number, stretch in enumerate(early):
            x, y = boundaries[number : number + 2]
            kept = self._forward(stretch, x, y)
            held = x * (stretch.learns and (stretch.recomputes or stretch.keeps_input))
            self.held += held
            self.kept += kept
            waiting.append((stretch, x, y, held, kept))
        self._turn(last, boundaries[-1])
        for stretch, x, y, held, kept in reversed(waiting):
            if stretch.learns:
                self.held -= held
                self.kept -= kept
                self._backward(stretch, x, held + y, kept)

    @abstractmethod
    def note(
        self,
        run: WayT,
        sweep: Sweep,
        boundaries: int,
        kept: Amount = 0,
        gradients: Amount = 0,
    ) -> None:
        """A sweep's worst moment, beside what else there is."""

    @abstractmethod
    def note_map(
        self, map_bytes: int, boundaries: int, kept: Amount = 0, gradients: Amount = 0
    ) -> None:
        """Between parts, with one micro-batch's map alone passing."""

    def _forward(self, stretch: StretchWays[WayT], x: int, y: int) -> Amount:
        """Returns what is kept for backward."""
        full, rest, num_full = stretch.full, stretch.rest, stretch.num_full
        taped = stretch.learns and not stretch.recomputes
        sweep: Sweep = "taped" if taped else "forward"
        kept = full.kept if taped else 0
        if stretch.is_single:
            self.note(full, sweep, x)
            return kept
        before = num_full - 1
        self.note(full, sweep, x + (y if before else 0), before * kept)
        self.note_map(full.y, x + y, num_full * kept)
        if rest is not None:
            self.note(rest, sweep, x + y, num_full * kept)
        if not taped:
            return 0
        return num_full * kept + (0 if rest is None else rest.kept)

    def _turn(self, stretch: StretchWays[WayT], x: int) -> None:
        sweep: Sweep = "taped" if stretch.learns else "forward"
        for kind, run, before in stretch.passes():
            self.note(run, sweep, x, gradients=run.gradients if before else 0)
            self.note(run, kind, x)

    def _backward(self, stretch: StretchWays[WayT], x: int, boundaries: int, kept: Amount) -> None:
        """boundaries: the output's gradient, and the input where it was held."""
        fresh = x if stretch.needs_input and not stretch.recomputes else 0
        for kind, run, before in stretch.passes(tapes_wait=not stretch.recomputes):
            around = boundaries + (fresh if before else 0)
            gradients = run.gradients if before else 0
            rest = 0
            if stretch.recomputes:
                self.note(run, "taped", around, gradients=gradients)
            else:
                rest = kept - before * stretch.full.kept - run.kept
            self.note(run, kind, around, rest)
            if stretch.needs_input and not stretch.is_single:
                self.note_map(run.x, boundaries + fresh, rest, run.gradients)
