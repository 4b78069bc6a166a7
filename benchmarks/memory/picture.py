"""docs/memory.svg: what whole processes that train take, drawn as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_MB = 10**6
_WIDTH = 1000
_BARS_LEFT = 130
_BARS_WIDTH = 770
_TOP = 96
_BAR = 20
_STEP = _BAR + 4
_GROUP = 3 * _STEP + 18

_STYLE = """
    .page { fill: #ffffff; stroke: #d0d7de }
    .title { fill: #1f2328; font-size: 20px; font-weight: 600 }
    .note { fill: #59636e; font-size: 14px }
    .name { fill: #1f2328; font-size: 15px; text-anchor: end }
    .value { fill: #59636e; font-size: 14px }
    .device-value { fill: #1a7f37; font-size: 15px; font-weight: 600 }
    .stock { fill: #c8d1da }
    .python { fill: #8fc7a1 }
    .device { fill: #1a7f37 }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117; stroke: #3d444d }
      .title, .name { fill: #f0f6fc }
      .note, .value { fill: #9198a1 }
      .device-value, .device { fill: #3fb950 }
      .python { fill: #25693a }
      .stock { fill: #3d444d }
    }
"""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """A training: peak resident memory of each whole process that does it."""

    name: str
    stock_bytes: int
    python_bytes: int
    device_bytes: int


def picture(groups: Sequence[Processes]) -> str:
    """An SVG with three bars for each; it follows the reader's light or dark mode."""
    height = _TOP + _GROUP * len(groups)
    scale = _BARS_WIDTH / max(group.stock_bytes for group in groups)
    description = ", ".join(
        f"{g.name}: stock PyTorch {_megabytes(g.stock_bytes)}, "
        f"tinyfit in Python {_megabytes(g.python_bytes)}, "
        f"tinyfit's device trainer {_megabytes(g.device_bytes)}"
        for g in groups
    )
    body = "\n".join(
        _group(group, _TOP + _GROUP * number, scale) for number, group in enumerate(groups)
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" \
role="img" aria-labelledby="title desc" \
font-family="system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif">
  <title id="title">Resident memory of processes that train</title>
  <desc id="desc">{escape(description)}.</desc>
  <style>{_STYLE}  </style>
  <rect class="page" x="1" y="1" width="{_WIDTH - 2}" height="{height - 2}" rx="12"/>
  <text class="title" x="24" y="38">Training ProxylessNAS-Mobile at 224 px: \
resident memory of the whole process</text>
{_legend()}
{body}
</svg>
"""


def _legend() -> str:
    return """\
  <rect class="stock" x="24" y="58" width="22" height="14" rx="2"/>
  <text class="note" x="53" y="70">stock PyTorch</text>
  <rect class="python" x="170" y="58" width="22" height="14" rx="2"/>
  <text class="note" x="199" y="70">tinyfit in Python</text>
  <rect class="device" x="335" y="58" width="22" height="14" rx="2"/>
  <text class="note" x="364" y="70">tinyfit's device trainer</text>"""


def _group(group: Processes, top: int, scale: float) -> str:
    bars = (
        ("stock", "value", group.stock_bytes),
        ("python", "value", group.python_bytes),
        ("device", "device-value", group.device_bytes),
    )
    lines = [
        f'  <text class="name" x="{_BARS_LEFT - 12}" y="{top + _STEP + 15}">'
        f"{escape(group.name)}</text>"
    ]
    for number, (kind, text, size) in enumerate(bars):
        y, width = top + _STEP * number, round(size * scale, 1)
        lines.append(
            f'  <rect class="{kind}" x="{_BARS_LEFT}" y="{y}" width="{width}" '
            f'height="{_BAR}" rx="2"/>\n'
            f'  <text class="{text}" x="{_BARS_LEFT + width + 8:.1f}" y="{y + 15}">'
            f"{_megabytes(size)}</text>"
        )
    return "\n".join(lines)


def _megabytes(size: int) -> str:
    return f"{size / _MB:.0f} MB" if size >= 100 * _MB else f"{size / _MB:.1f} MB"
