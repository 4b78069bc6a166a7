"""What traces come to: means and spreads of seeds, the figures of --json, tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from benchmarks.search.runs import OURS, PEERS
from benchmarks.search.traces import BUDGETS, Trace

WALL_SECONDS = (5, 10, 20, 40)
OUR_BUDGET = 100
PEER_BUDGET = 250


@dataclass(frozen=True, kw_only=True)
class Panel:
    """All traces of a landscape and a limit, with the best that is known of it.

    best_accuracy, best_hypervolume (accuracy times bytes): of the whole landscape. is_noise_free:
    whether accuracies are not measured on some images.
    """

    landscape: str
    limit_share: float
    limit_bytes: int
    best_accuracy: float
    best_hypervolume: float
    is_noise_free: bool
    score_seconds: float
    traces: tuple[Trace, ...]

    @property
    def searchers(self) -> list[str]:
        present = {trace.searcher for trace in self.traces}
        return [name for name in (*PEERS, *OURS) if name in present]

    def of(self, searcher: str) -> list[Trace]:
        return [trace for trace in self.traces if trace.searcher == searcher]

    def at(self, searcher: str, evaluations: int) -> Seen | None:
        """After so many evaluations; None where the searcher was not seen then."""
        traces = [t for t in self.of(searcher) if evaluations in t.evaluations]
        return self._seen([trace.at(evaluations) for trace in traces])

    def after(self, searcher: str, seconds: float) -> Seen | None:
        """After so much time, scoring included."""
        found = [trace.after(seconds, self.score_seconds) for trace in self.of(searcher)]
        return self._seen([each for each in found if each is not None])

    def _seen(self, pairs: Sequence[tuple[float, float]]) -> Seen | None:
        if not pairs:
            return None
        accuracies = [accuracy for accuracy, _ in pairs]
        shares = [area / self.best_hypervolume for _, area in pairs]
        return Seen(
            accuracy=mean(accuracies),
            accuracy_deviation=stdev(accuracies) if len(pairs) > 1 else 0.0,
            hypervolume=mean(shares),
            hypervolume_deviation=stdev(shares) if len(pairs) > 1 else 0.0,
            regret_points=100 * (self.best_accuracy - mean(accuracies)),
        )


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Means and standard deviations over seeds: accuracy from 0 to 1, the hypervolume as a share
    of the best known.
    """

    accuracy: float
    accuracy_deviation: float
    hypervolume: float
    hypervolume_deviation: float
    regret_points: float


def summary(panels: Sequence[Panel]) -> dict[str, float | None]:
    """hypervolume_ratio: of ours at 100 evaluations to the best peer's at 250 (or at its last),
    the smallest over panels and both ways to ask ours. regret_points: of ours at 100, the largest
    on landscapes that are free of noise; None without one.
    """
    ratios, regrets = [], []
    for panel in panels:
        ends = [_last(panel, name) for name in panel.searchers if name in PEERS]
        best = max(seen.hypervolume for seen in ends)
        for name in OURS:
            ours = panel.at(name, OUR_BUDGET)
            assert ours is not None
            ratios.append(ours.hypervolume / best)
            if panel.is_noise_free:
                regrets.append(ours.regret_points)
    return {
        "hypervolume_ratio": min(ratios),
        "regret_points": max(regrets) if regrets else None,
    }


def _last(panel: Panel, searcher: str) -> Seen:
    evaluations = max(panel.of(searcher)[0].evaluations)
    seen = panel.at(searcher, min(evaluations, PEER_BUDGET))
    assert seen is not None
    return seen


def rows(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    """One for each panel, searcher and number of evaluations or of seconds."""
    for panel in panels:
        for name in panel.searchers:
            at = [("evaluations", budget, panel.at(name, budget)) for budget in BUDGETS]
            after = [("seconds", time, panel.after(name, time)) for time in WALL_SECONDS]
            for unit, value, seen in (*at, *after):
                if seen is not None:
                    yield {
                        "landscape": panel.landscape,
                        "limit_share": panel.limit_share,
                        "limit_bytes": panel.limit_bytes,
                        "searcher": name,
                        unit: value,
                        **{key: round(number, 5) for key, number in vars(seen).items()},
                    }


def tables(panels: Sequence[Panel]) -> Iterator[str]:
    """Lines of Markdown: for each panel, its searchers by evaluations and by time."""
    for panel in panels:
        yield (
            f"\n{panel.landscape}, limit {panel.limit_bytes / 1e6:.1f} MB "
            f"({panel.limit_share:.0%} of the way), best known {100 * panel.best_accuracy:.2f} %"
        )
        for title, columns, seen_by in (
            ("evaluations", BUDGETS, panel.at),
            ("seconds", WALL_SECONDS, panel.after),
        ):
            yield ""
            yield f"| after {title} | " + " | ".join(map(str, columns)) + " |"
            yield "|---" * (len(columns) + 1) + "|"
            for name in panel.searchers:
                cells = [_cell(seen_by(name, column)) for column in columns]
                yield f"| {name} | " + " | ".join(cells) + " |"


def _cell(seen: Seen | None) -> str:
    if seen is None:
        return "-"
    return (
        f"{100 * seen.accuracy:.2f} ± {100 * seen.accuracy_deviation:.2f}, "
        f"{seen.hypervolume:.3f} ± {seen.hypervolume_deviation:.3f}"
    )


def panels_of(
    traces: Sequence[Trace], facts: Mapping[tuple[str, float], Mapping[str, Any]]
) -> list[Panel]:
    """facts: of each landscape and limit share, the other fields of Panel."""
    return [
        Panel(
            landscape=name,
            limit_share=share,
            traces=tuple(t for t in traces if (t.landscape, t.limit_share) == (name, share)),
            **found,
        )
        for (name, share), found in facts.items()
    ]
