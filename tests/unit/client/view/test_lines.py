"""Lines of styled text: width, wrapping, escaping."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftq_client.view.lines import (
    ASCII,
    UNICODE,
    Style,
    cells,
    crop,
    glyphs_for,
    shown,
    text_of,
    width_of,
    wrap,
)  # fmt: skip

LINES = st.lists(st.tuples(st.text(max_size=40), st.sampled_from(Style)), max_size=6).map(tuple)


@given(LINES, st.integers(4, 80))
def test_wrapping_fits_and_loses_only_spaces(line, width) -> None:
    rows = wrap(line, width, indent=2)
    assert all(width_of(row) <= width for row in rows)
    assert text_of(s for r in rows for s in r).replace(" ", "") == text_of(line).replace(" ", "")


@given(LINES, st.integers(4, 80))
def test_cropping_fits_and_keeps_the_start(line, width) -> None:
    short = crop(line, width)
    assert width_of(short) <= width
    if width_of(line) <= width:
        assert short == line
    else:
        assert text_of(line).startswith(text_of(short)[:-1])


def test_wrapping_breaks_between_words_and_keeps_styles() -> None:
    line = (("one two ", Style.PLAIN), ("three four", Style.BAD))
    assert wrap(line, 10, indent=2) == [
        (("one two", Style.PLAIN),),
        (("  ", Style.PLAIN), ("three", Style.BAD)),
        (("  ", Style.PLAIN), ("four", Style.BAD)),
    ]


def test_a_separator_does_not_begin_a_line() -> None:
    rows = wrap((("7,473 rows · question", Style.PLAIN),), 13)
    assert [text_of(row) for row in rows] == ["7,473 rows ·", "question"]


def test_wide_and_combining_characters_are_measured() -> None:
    assert cells("日本") == 4
    assert cells("e\u0301") == 1
    assert [text_of(row) for row in wrap((("日本語", Style.PLAIN),), 4)] == ["日本", "語"]


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("\x1b[31mred", r"\x1b[31mred"), ("a\nb", r"a\x0ab"), ("a\tb", "a    b"),
        ("[red]literal[/red]", "[red]literal[/red]"), ("\u202eabc", r"\u202eabc"), (None, "None"),
    ],
)  # fmt: skip
def test_text_from_outside_cannot_steer(raw: object, safe: str) -> None:
    assert shown(raw).lower() == safe.lower()


@given(st.text())
def test_nothing_that_steers_is_left(text: str) -> None:
    assert not any(
        ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in shown(text)
    )


def test_signs_follow_the_encoding() -> None:
    assert glyphs_for("utf-8") is UNICODE
    assert glyphs_for(None) is UNICODE
    assert glyphs_for("ISO-8859-1") is ASCII
    assert all(str(v).isascii() for v in vars(ASCII).values())
    assert len(ASCII.spark) == len(UNICODE.spark) == 8
