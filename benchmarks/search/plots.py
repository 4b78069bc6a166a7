"""Pictures of a comparison: a panel for each landscape and limit, a line for each searcher."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from benchmarks.search.figures import Panel, Seen

_WIDTH, _HEIGHT = 360, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 46, 40
_HEAD, _MARGIN = 96, 16
_TICKS = (5, 10, 25, 50, 100, 250)
_COLORS = {
    "random": "#8c959f",
    "TPE": "#bf8700",
    "NSGA-II": "#8250df",
    "GP": "#0969da",
    "OFA": "#bc4c00",
    "LINAS": "#cf222e",
    "ours": "#1a7f37",
    "ours, by 4": "#4ac26b",
}
_STYLE = """
    text { font-family: system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif }
    .page { fill: #ffffff }
    .title { fill: #1f2328; font-size: 19px; font-weight: 600 }
    .panel { fill: #1f2328; font-size: 14px; font-weight: 600 }
    .note { fill: #59636e; font-size: 12px }
    .grid { stroke: #e6eaef; stroke-width: 1 }
    .best { stroke: #59636e; stroke-width: 1; stroke-dasharray: 4 3 }
"""


class _View(NamedTuple):
    """What a picture shows: its title, the value and its deviation, and the best known."""

    title: str
    value: Callable[[Seen], tuple[float, float]]
    best: Callable[[Panel], float]


_VIEWS = {
    "accuracy": _View(
        "Best accuracy that fits, in percent",
        lambda seen: (100 * seen.accuracy, 100 * seen.accuracy_deviation),
        lambda panel: 100 * panel.best_accuracy,
    ),
    "hypervolume": _View(
        "Hypervolume of the front, as a share of the best known",
        lambda seen: (seen.hypervolume, seen.hypervolume_deviation),
        lambda panel: 1.0,
    ),
}


def draw(panels: Sequence[Panel], folder: Path) -> None:
    """Write search_accuracy.svg and search_hypervolume.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, view in _VIEWS.items():
        (folder / f"search_{name}.svg").write_text(picture(panels, view))


def picture(panels: Sequence[Panel], view: _View) -> str:
    """A row of panels for each landscape, a column for each limit."""
    landscapes = list(dict.fromkeys(panel.landscape for panel in panels))
    shares = list(dict.fromkeys(panel.limit_share for panel in panels))
    width = 2 * _MARGIN + _WIDTH * len(shares)
    height = _HEAD + _HEIGHT * len(landscapes) + _MARGIN
    body = [
        line
        for panel in panels
        for line in _panel(
            panel,
            view,
            _MARGIN + _WIDTH * shares.index(panel.limit_share),
            _HEAD + _HEIGHT * landscapes.index(panel.landscape),
        )
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>{escape(view.title)}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="page" width="{width}" height="{height}" rx="12"/>',
            f'<text class="title" x="{_MARGIN + 8}" y="34">{escape(view.title)}</text>',
            f'<text class="note" x="{_MARGIN + 8}" y="56">over evaluations; mean of seeds, band: '
            "one standard deviation</text>",
            *_legend(panels),
            *body,
            "</svg>\n",
        ]
    )


def _legend(panels: Sequence[Panel]) -> Iterator[str]:
    x = _MARGIN + 8
    for name in panels[0].searchers:
        yield f'<rect x="{x}" y="69" width="22" height="4" rx="2" fill="{_COLORS[name]}"/>'
        yield f'<text class="note" x="{x + 28}" y="75">{escape(name)}</text>'
        x += 48 + 7 * len(name)


def _panel(panel: Panel, view: _View, left: int, top: int) -> Iterator[str]:
    lines = {name: _points(panel, name, view) for name in panel.searchers}
    # the first evaluations would flatten all others
    values = [value for points in lines.values() for x, value, _ in points if x >= 25]
    high = max([*values, view.best(panel)])
    low = min(values) - 0.05 * (high - min(values))
    high += 0.05 * (high - low)
    inner_width, inner_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x_of(evaluations: float) -> float:
        span = math.log(_TICKS[-1] / _TICKS[0])
        return left + _LEFT + inner_width * math.log(evaluations / _TICKS[0]) / span

    def y_of(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return top + _TOP + inner_height * (1 - share)

    heading = f"{panel.landscape}, {panel.limit_bytes / 1e6:.1f} MB ({panel.limit_share:.0%})"
    yield f'<text class="panel" x="{left + _LEFT}" y="{top + 30}">{escape(heading)}</text>'
    step = _step(high - low)
    tick = math.ceil(low / step) * step
    while tick <= high:
        y = y_of(tick)
        yield f'<path class="grid" d="M{left + _LEFT} {y:.1f}h{inner_width}"/>'
        yield (
            f'<text class="note" text-anchor="end" x="{left + _LEFT - 7}" y="{y + 4:.1f}">'
            f"{tick:g}</text>"
        )
        tick = round(tick + step, 10)
    for count in _TICKS:
        x = x_of(count)
        yield (
            f'<text class="note" text-anchor="middle" x="{x:.1f}" y="{top + _HEIGHT - 20}">'
            f"{count}</text>"
        )
    yield f'<path class="best" d="M{left + _LEFT} {y_of(view.best(panel)):.1f}h{inner_width}"/>'
    for name, points in lines.items():
        upper = [(x_of(x), y_of(value + spread)) for x, value, spread in points]
        lower = [(x_of(x), y_of(value - spread)) for x, value, spread in reversed(points)]
        color = _COLORS[name]
        yield f'<path d="{_path([*upper, *lower])}z" fill="{color}" opacity="0.1"/>'
        line = _path([(x_of(x), y_of(value)) for x, value, _ in points])
        thick = 2.6 if name.startswith("ours") else 1.5
        yield f'<path d="{line}" fill="none" stroke="{color}" stroke-width="{thick}"/>'


def _points(panel: Panel, searcher: str, view: _View) -> list[tuple[int, float, float]]:
    found = []
    for evaluations in panel.of(searcher)[0].evaluations:
        seen = panel.at(searcher, evaluations)
        assert seen is not None
        found.append((evaluations, *view.value(seen)))
    return found


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _step(span: float) -> float:
    """Between lines of the grid: 1, 2 or 5 times a power of ten, for four or so."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= span / 4.5)
