"""A micro-batch's way through a stretch of parts: what it takes at the worst moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, islice, repeat
from operator import add, sub
from typing import NamedTuple

from tinytl.accounting.layers.ledger import Pass
from tinytl.accounting.step.costs import HeadCost, Row, Sweep


class Moment(NamedTuple):
    """Bytes at one moment of a step, beside what stands through all of it."""

    total: int = 0
    workspace: int = 0
    gradients: int = 0
    kept: int = 0
    boundaries: int = 0

    def beside(self, boundaries: int, kept: int, gradients: int) -> Moment:
        """The same moment with what else there is at the time."""
        return Moment(
            self.total + boundaries + kept + gradients,
            self.workspace,
            self.gradients + gradients,
            self.kept + kept,
            self.boundaries + boundaries,
        )


class Run:
    """A micro-batch's way through a stretch: the rows of its parts, turned to columns.

    learns_from: the first part that backward reaches. head: in the last stretch. kept, gradients:
    all that waits. Peaks and moments are beside what else there is at the time.
    """

    __slots__ = (
        "_befores",
        "_columns",
        "_gradients",
        "_peaks",
        "_workspaces",
        "gradients",
        "head",
        "kept",
        "learns_from",
        "stored",
        "x",
        "y",
    )

    def __init__(self, rows: Sequence[Row], learns_from: int, head: HeadCost | None) -> None:
        self.head = head
        self.learns_from = learns_from
        self.x, self.y = rows[0].cost.x, rows[-1].cost.y
        (
            kept,
            self._gradients,
            forward,
            taped,
            only,
            first,
            middle,
            last,
            self._workspaces,
            *self.stored,
            _,
        ) = zip(*rows, strict=True)
        if learns_from:
            kept = (0,) * learns_from + kept[learns_from:]
            taped = forward[:learns_from] + taped[learns_from:]
        self._columns: dict[Sweep, tuple[int, ...]] = {
            "forward": forward,
            "taped": taped,
            "only": only,
            "first": first,
            "middle": middle,
            "last": last,
        }
        self._befores = list(accumulate(kept, initial=0))  # what the parts before each keep
        self.kept: int = self._befores.pop()
        self.gradients: int = sum(self._gradients) + (0 if head is None else head.gradients)
        self._peaks: dict[Sweep, int] = {}

    def peak(self, sweep: Sweep) -> int:
        """The most bytes at a time; see moment."""
        found: int | None = self._peaks.get(sweep)
        if found is None:
            found = max(self._totals(sweep), default=0)
            if sweep != "forward" and sweep != "taped" and self.head is not None:
                found = max(found + self._passing, self._turn(sweep, self.head).total)
            self._peaks[sweep] = found
        return found

    def moment(self, sweep: Sweep) -> Moment:
        """The worst moment: of forward, at whose end the output and what was kept are there; or of
        backward, at whose start there is what was kept, and the gradients so far."""
        totals = self._totals(sweep)
        if sweep == "forward" or sweep == "taped":
            part = totals.index(max(totals))
            kept = self._befores[part] if sweep == "taped" else 0
            taped = sweep == "taped" and part >= self.learns_from
            workspace = self._workspaces[part]["taped" if taped else "forward"]
            return Moment(totals[part], workspace, 0, kept)
        total = self.peak(sweep)
        if self.head is not None:
            turn = self._turn(sweep, self.head)
            if turn.total == total:
                return turn
        part = max(i for i, other in enumerate(totals) if other + self._passing == total)
        gradients = next(islice(self._waiting(sweep), part, None))
        part += self.learns_from
        return Moment(total, self._workspaces[part][sweep], gradients, self._befores[part])

    def _totals(self, sweep: Sweep) -> Sequence[int]:
        """At each part; of backward from the first that learns, without what passes."""
        peaks, start = self._columns[sweep], self.learns_from
        if sweep == "forward":
            return peaks
        if sweep == "taped":
            return list(map(add, self._befores, peaks))
        totals = map(add, self._befores[start:], peaks[start:])
        return list(totals if sweep == "only" else map(add, totals, self._waiting(sweep)))

    def _waiting(self, kind: Pass) -> Iterator[int]:
        """Gradients that wait while backward is at each part."""
        if kind == "only":
            return repeat(0)
        if kind == "middle":
            return repeat(self.gradients)
        up_to = accumulate(self._gradients[self.learns_from :])
        return up_to if kind == "last" else map(sub, repeat(self.gradients), up_to)

    @property
    def _passing(self) -> int:
        """The features and their gradient, to the end."""
        return 0 if self.head is None else 2 * self.y

    def _turn(self, kind: Pass, head: HeadCost) -> Moment:
        gradients = 0 if kind in ("only", "first") else self.gradients
        total = self.kept + gradients + head.peaks[kind]
        return Moment(total, head.workspaces[kind], gradients, self.kept)
