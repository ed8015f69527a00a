"""Plots as inline SVG: plain shapes and text, coloured by the page's own style sheet."""

from collections.abc import Iterable, Sequence
from html import escape

from ftq_shared.data_report import Histogram
from ftq_shared.redaction import escape_control

_WIDTH = 720  # of every plot, in pixels; it shrinks with the page
_ROW = 26  # height of a bar that lies
_NAME = 190  # width for the names of bars that lie
_NAME_CHARS = 26
_VALUE = 90  # width for their figures
_HIGH = 150  # height of bars that stand
_AXIS = 30


def histogram_plot(data: Histogram, title: str) -> str:
    """Return the counts as bars that stand, with the lowest and the highest edge below."""
    counts, edges = data["rows"], data["edges"]
    most, width = max(counts), _WIDTH / len(counts)
    shapes = []
    for i, count in enumerate(counts):
        high = _HIGH * count / most
        tip = f"{edges[i]:,.0f} up to {edges[i + 1]:,.0f} tokens: {count:,} rows"
        box = _rect(i * width + 1, _HIGH - high + 14, max(width - 2, 1), high)
        shapes.append(_titled(box, tip))
    y = _HIGH + 14
    shapes += [
        f'<line x1="0" y1="{y}" x2="{_WIDTH}" y2="{y}"/>',
        _text(0, y + 18, f"{edges[0]:,.0f} tokens"),
        _text(_WIDTH, y + 18, f"{edges[-1] - 1:,.0f} tokens", "end"),
        _text(0, 10, f"{most:,} rows"),
    ]
    return _svg(shapes, y + _AXIS, title)


def bars_plot(bars: Sequence[tuple[str, int]], title: str) -> str:
    """Return figures as bars that lie, one below the other, each with its name and number."""
    most = max((value for _, value in bars), default=0) or 1
    room = _WIDTH - _NAME - _VALUE
    shapes = []
    for i, (name, value) in enumerate(bars):
        y = i * _ROW
        box = _rect(_NAME, y + 5, room * value / most, _ROW - 10)
        short = name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS - 1]}…"
        shapes.append(_titled(_text(_NAME - 8, y + 17, short, "end") + box, f"{name}: {value:,}"))
        shapes.append(_text(_NAME + room * value / most + 8, y + 17, f"{value:,}"))
    return _svg(shapes, len(bars) * _ROW + 4, title)


def shown(value: object) -> str:
    """Return a text from outside as it may stand in a page: escaped, without control characters."""
    return escape(escape_control(str(value)), quote=True)


def _svg(shapes: Iterable[str], height: float, title: str) -> str:
    size = f'viewBox="0 0 {_WIDTH} {height:.0f}"'
    label = shown(title)
    return f'<svg {size} role="img" aria-label="{label}">{"".join(shapes)}</svg>'


def _rect(x: float, y: float, width: float, height: float) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{shown(text)}</text>'


def _titled(shape: str, tip: str) -> str:
    return f"<g><title>{shown(tip)}</title>{shape}</g>"
