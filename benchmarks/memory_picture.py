"""docs/memory.svg: what stock PyTorch and tinyfit take for a training, drawn as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_MB = 10**6
_WIDTH = 1000
_BARS_LEFT = 190
_BARS_WIDTH = 700
_TOP = 96
_GROUP = 52
_BAR = 17
_VALUE = 66

_STYLE = """
    .page { fill: #ffffff; stroke: #d0d7de }
    .title { fill: #1f2328; font-size: 20px; font-weight: 600 }
    .note { fill: #59636e; font-size: 14px }
    .name { fill: #1f2328; font-size: 15px; text-anchor: end }
    .value { fill: #59636e; font-size: 14px }
    .ours-value { fill: #1a7f37; font-size: 15px; font-weight: 600 }
    .stock { fill: #c8d1da }
    .ours { fill: #1a7f37 }
    .paper { stroke: #cf222e; stroke-width: 2.5 }
    .paper-value { fill: #cf222e; font-size: 14px }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117; stroke: #3d444d }
      .title, .name { fill: #f0f6fc }
      .note, .value { fill: #9198a1 }
      .ours-value, .ours { fill: #3fb950 }
      .stock { fill: #3d444d }
      .paper { stroke: #f85149 }
      .paper-value { fill: #f85149 }
    }
"""


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A method: allocator peaks of stock PyTorch and tinyfit, and what the paper counts."""

    name: str
    published_bytes: int
    stock_bytes: int
    ours_bytes: int


def picture(groups: Sequence[Bars]) -> str:
    """An SVG with a pair of bars for each; it follows the reader's light or dark mode."""
    height = _TOP + _GROUP * len(groups) + 10
    full_bytes = max(max(g.stock_bytes, g.ours_bytes, g.published_bytes) for g in groups)
    scale = _BARS_WIDTH / full_bytes
    description = ", ".join(
        f"{g.name}: stock PyTorch {_megabytes(g.stock_bytes)}, "
        f"tinyfit {_megabytes(g.ours_bytes)}, counted by the paper {_megabytes(g.published_bytes)}"
        for g in groups
    )
    body = "\n".join(
        _group(group, _TOP + _GROUP * number, scale) for number, group in enumerate(groups)
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" \
role="img" aria-labelledby="title desc" \
font-family="system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif">
  <title id="title">Memory to train</title>
  <desc id="desc">{escape(description)}.</desc>
  <style>{_STYLE}  </style>
  <rect class="page" x="1" y="1" width="{_WIDTH - 2}" height="{height - 2}" rx="12"/>
  <text class="title" x="24" y="38">Memory to train ProxylessNAS-Mobile, 224 px, batch 8: \
measured peak</text>
{_legend()}
{body}
</svg>
"""


def _legend() -> str:
    return """\
  <rect class="stock" x="24" y="58" width="22" height="14" rx="2"/>
  <text class="note" x="53" y="70">stock PyTorch</text>
  <rect class="ours" x="170" y="58" width="22" height="14" rx="2"/>
  <text class="note" x="199" y="70">tinyfit</text>
  <path class="paper" d="M274 57v16"/>
  <text class="note" x="284" y="70">what the TinyTL paper counts (no gradients, optimizer \
state or temporaries)</text>"""


def _group(group: Bars, top: int, scale: float) -> str:
    stock, ours, paper = (
        round(size * scale, 1)
        for size in (group.stock_bytes, group.ours_bytes, group.published_bytes)
    )
    left, second = _BARS_LEFT, top + _BAR + 3
    paper_x = left + paper
    # our value stands right of our bar, or right of the mark where that would cross it
    value_x = max(left + ours, paper_x if ours < paper < ours + _VALUE else 0) + 8
    paper_value_x = max(paper_x + 8, value_x + _VALUE)
    return f"""\
  <text class="name" x="{left - 12}" y="{top + 24}">{escape(group.name)}</text>
  <rect class="stock" x="{left}" y="{top}" width="{stock}" height="{_BAR}" rx="2"/>
  <text class="value" x="{left + stock + 8:.1f}" y="{top + 14}">\
{_megabytes(group.stock_bytes)}</text>
  <rect class="ours" x="{left}" y="{second}" width="{ours}" height="{_BAR}" rx="2"/>
  <text class="ours-value" x="{value_x:.1f}" y="{second + 14}">\
{_megabytes(group.ours_bytes)}</text>
  <text class="paper-value" x="{paper_value_x:.1f}" y="{second + 14}">\
{_megabytes(group.published_bytes)}</text>
  <path class="paper" d="M{paper_x:.1f} {top - 3}v{2 * _BAR + 9}"/>"""


def _megabytes(size: int) -> str:
    return f"{size / _MB:.0f} MB"
