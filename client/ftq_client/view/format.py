"""Numbers as people read them: durations, sizes, figures, bars and sparklines.

Every function takes whatever an event may hold, null included, and returns text.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from ftq_client.view.lines import ASCII, Glyphs, shown

UNKNOWN = "?"


def number(value: object) -> float | None:
    """Return a finite real number, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an int that no float can hold
        return None


def duration(seconds: object) -> str:
    """Return 0.4s, 41s, 5m41s, 2h05m or 3d04h."""
    value = number(seconds)
    if value is None or value < 0:
        return UNKNOWN
    if value < 9.95:  # below ten, once rounded to a tenth
        return f"{value:.1f}s"
    minutes, secs = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02d}h"
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{secs:02d}s" if minutes else f"{secs}s"


def count(value: object) -> str:
    """Return a number with commas; what is no number is shown as it came."""
    if value is None:
        return UNKNOWN
    known = number(value)
    if known is None:
        return shown(value)
    return f"{known:,.0f}" if known == int(known) or abs(known) >= 1000 else f"{known:,.1f}"


def counted(value: int, noun: str) -> str:
    """Return so many of a noun that takes an s: 1 file, 3 files."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def size(value: object) -> str:
    """Return bytes as 512 B, 1.2 MB or 3.4 GB (powers of 1000, as disks and hubs count)."""
    left = number(value)
    if left is None:
        return UNKNOWN
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(left) < 999.5 or unit == "TB":
            return f"{left:.0f} {unit}" if unit == "B" or left >= 99.95 else f"{left:.1f} {unit}"
        left /= 1000
    return UNKNOWN


def amount(value: object, unit: object) -> str:
    """Return so many of a unit; bytes become a size."""
    return size(value) if unit == "bytes" else f"{count(value)} {shown(unit)}".rstrip()


def figure(value: object) -> str:
    """Return a loss or another measured number with four decimals; null is `nan`."""
    known = number(value)
    if known is None:
        return "nan"
    return f"{known:.4f}" if abs(known) < 1000 else f"{known:.3e}"


def short(value: object) -> str:
    """Return a number in few characters: 0.90, 12.3, 1.2e+05; null is `nan`."""
    known = number(value)
    if known is None:
        return "nan"
    size_ = abs(known)
    if size_ and (size_ < 0.01 or size_ >= 9999.5):
        return f"{known:.1e}"
    return f"{known:.2f}" if size_ < 10 else f"{known:.1f}"


def rate(value: object) -> str:
    """Return a learning rate: 2.0e-04."""
    known = number(value)
    return "nan" if known is None else f"{known:.1e}"


def percent(value: object, digits: int = 1) -> str:
    """Return a share of 1 as 95.6%."""
    known = number(value)
    return UNKNOWN if known is None else f"{100 * known:.{digits}f}%"


def seconds_of(time: str) -> float:
    """Return an event's time as seconds since 1970, 0 when it is none."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def clock(time: str) -> str:
    """Return an event's time as HH:MM:SS where the reader is."""
    try:
        return datetime.fromisoformat(time).astimezone().strftime("%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "--:--:--"


def moment(seconds: float) -> str:
    """Return seconds since 1970 as date and time where the reader is."""
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return UNKNOWN


def bar(done: object, total: object, width: int, glyphs: Glyphs = ASCII) -> tuple[str, str]:
    """Return a bar's done part and its rest, together `width` characters."""
    part, whole = number(done), number(total)
    share = min(max((part or 0) / whole, 0.0), 1.0) if whole and whole > 0 else 0.0
    full = int(share * width)
    # A tip shows that the bar moves; a full or an empty one has none.
    tip = glyphs.tip if share > 0 and full < width else ""
    return glyphs.full * full + tip, glyphs.empty * (width - full - len(tip))


def sparkline(values: Sequence[float | None], width: int, glyphs: Glyphs = ASCII) -> str:
    """Return the values as at most `width` signs, low to high; what is not finite is a hole.

    Each sign is the mean of a run of values, and a hole when one of them is not finite. A constant
    series is a flat line.
    """
    if width <= 0 or not values:
        return ""
    points = _buckets([number(v) for v in values], width)
    finite = [p for p in points if p is not None]
    if not finite:
        return glyphs.hole * len(points)
    low, high = min(finite), max(finite)
    return "".join(_spark(p, low, high, glyphs) for p in points)


def _spark(value: float | None, low: float, high: float, glyphs: Glyphs) -> str:
    if value is None:
        return glyphs.hole
    # Halved first: the span of two huge numbers of opposite sign is no float.
    span = high / 2 - low / 2
    top = len(glyphs.spark) - 1
    if span <= 0:
        return glyphs.spark[top // 2]
    return glyphs.spark[min(top, round((value / 2 - low / 2) / span * top))]


def _buckets(values: list[float | None], width: int) -> list[float | None]:
    """Return the values as at most `width` means; a bucket with a hole is a hole."""
    if len(values) <= width:
        return values
    edges = [i * len(values) // width for i in range(width + 1)]
    return [_mean(values[a:b]) for a, b in pairwise(edges)]


def _mean(values: list[float | None]) -> float | None:
    finite = [v for v in values if v is not None]
    # One loss that was not finite must be seen among hundreds that were.
    if len(finite) < len(values):
        return None
    return math.fsum(v / len(finite) for v in finite)
