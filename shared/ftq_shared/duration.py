"""Durations as people write them."""

from typing import Any


def parse_duration(value: Any) -> Any:
    """Turn '90', '10m', '2h' or '1d' into seconds; leaves anything else to the schema.

    Raises ValueError for a string that is neither.
    """
    if not isinstance(value, str) or value == "auto":
        return value
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = (value[:-1], value[-1]) if value[-1:] in units else (value, "s")
    try:
        return float(number) * units[unit]
    except ValueError:
        raise ValueError(f"{value!r} is no duration; write 90s, 10m, 2h or 1d") from None
