"""Numbers, bars and sparklines, for whatever an event may hold."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftq_client.view import format as fmt
from ftq_client.view.lines import ASCII, UNICODE

ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text())
LOSSES = st.lists(st.one_of(st.none(), st.floats()), max_size=300)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0s"), (0.44, "0.4s"), (9.94, "9.9s"), (9.96, "10s"), (59.4, "59s"), (59.6, "1m00s"),
        (341, "5m41s"), (3599.6, "1h00m"), (7500, "2h05m"), (86399, "23h59m"), (273_600, "3d04h"),
        (None, "?"), (math.nan, "?"), (-1, "?"), (True, "?"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, shown: str) -> None:
    assert fmt.duration(seconds) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_314_000, "2.3 MB"), (99_960_000, "100 MB"),
     (999_600, "1.0 MB"), (3.4e9, "3.4 GB"), (5e15, "5000 TB"), (None, "?")],
)  # fmt: skip
def test_sizes(value: float | None, shown: str) -> None:
    assert fmt.size(value) == shown


def test_figures_keep_their_digits() -> None:
    assert fmt.figure(1.83) == "1.8300"
    assert fmt.figure(123456.0) == "1.235e+05"
    assert fmt.figure(None) == "nan"
    assert fmt.rate(0.0002) == "2.0e-04"
    assert [fmt.short(v) for v in (0.9, 12.34, 0.0, 1e-5, 123456)] == [
        "0.90", "12.3", "0.00", "1.0e-05", "1.2e+05",
    ]  # fmt: skip
    assert fmt.count(5120) == "5,120"
    assert fmt.count(1234.56) == "1,235"
    assert fmt.count(12.34) == "12.3"
    assert fmt.percent(0.956) == "95.6%"


@given(ANYTHING)
def test_no_value_is_too_odd(value: object) -> None:
    for show in (fmt.duration, fmt.count, fmt.size, fmt.figure, fmt.short, fmt.rate, fmt.percent):
        assert isinstance(show(value), str)


@given(ANYTHING, ANYTHING, st.integers(1, 80))
def test_a_bar_has_its_width(done: object, total: object, width: int) -> None:
    for glyphs in (ASCII, UNICODE):
        full, rest = fmt.bar(done, total, width, glyphs)
        assert len(full) + len(rest) == width


def test_only_a_finished_bar_is_full() -> None:
    assert fmt.bar(0, 10, 10) == ("", "..........")
    assert fmt.bar(9.99, 10, 10) == ("=========>", "")
    assert fmt.bar(10, 10, 10) == ("==========", "")
    assert fmt.bar(11, 10, 10) == ("==========", "")


@given(LOSSES, st.integers(-1, 60))
def test_a_sparkline_fits_and_shows_every_hole(values: list[float | None], width: int) -> None:
    line = fmt.sparkline(values, width, UNICODE)
    assert len(line) == min(len(values), max(width, 0))
    assert set(line) <= set(UNICODE.spark + UNICODE.hole)
    holes = [v for v in values if v is None or not math.isfinite(v)]
    assert (UNICODE.hole in line) == bool(line and holes)


def test_sparkline_scales() -> None:
    assert fmt.sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8, UNICODE) == "▁▂▃▄▅▆▇█"
    assert fmt.sparkline([7, 0], 8, UNICODE) == "█▁"
    assert fmt.sparkline([2, 2, 2], 8, UNICODE) == "▄▄▄"
    assert fmt.sparkline([1, None, 3], 8, ASCII) == "_x#"
    assert fmt.sparkline([math.nan, math.inf], 8, ASCII) == "xx"
    assert fmt.sparkline([], 8) == ""
    # Two huge numbers of opposite sign: their distance is no float.
    assert fmt.sparkline([-1.7e308, 1.7e308], 8, UNICODE) == "▁█"


def test_a_time_that_is_none_is_no_error() -> None:
    assert fmt.clock("yesterday") == "--:--:--"
    assert fmt.seconds_of("yesterday") == 0.0
    assert fmt.seconds_of("1970-01-01T00:00:01.500Z") == 1.5
    assert fmt.moment(1e300) == "?"
