"""A data report as lines for a terminal or a file: what is trained stands out, the rest is dim."""

from collections.abc import Iterator, Sequence

from ftq_client.view.format import counted, percent, sparkline
from ftq_client.view.lines import Glyphs, Line, Span, Style, shown, wrap
from ftq_shared.data_report import Choice, DataReport, LeftOutRow, ReportRow, SplitFacts

_LABEL = 10  # columns for what a line is about
_ROW_LINES = 24  # of one row; the whole of it is in --json and in the page
_PIECE = 700  # characters of a piece; of a longer one both ends are shown
_LABELS = 12  # that are listed


def report_lines(report: DataReport, *, width: int, glyphs: Glyphs, marks: bool) -> list[Line]:
    """Return the lines of a report, each of at most `width` columns.

    `marks` puts brackets around what is trained, for output without colours.
    """
    return [
        *_head(report, width),
        *_left_out(report, width),
        *_unused(report, width, glyphs),
        *_lengths(report, width, glyphs),
        *_labels(report, width),
        *_rows(report, width, glyphs, marks=marks),
        *_warnings(report, width, glyphs),
    ]


def _head(report: DataReport, width: int) -> Iterator[Line]:
    columns = ", ".join(f"{part}={name}" for part, name in report["columns"].items())
    yield from _fact("model", shown(report["model"]), "", width)
    yield from _fact("dataset", shown(report["dataset"]), "", width)
    yield from _choice("task", report["task"], width)
    yield from _fact("layout", shown(report["layout"]), columns, width)
    yield from _choice("format", report["format"], width)
    for split in report["splits"]:
        yield from _fact(split["role"], *_split(split, report), width)
    if report["sets"]:
        sets = ", ".join(f"{name} {rows:,}" for name, rows in report["sets"].items())
        yield from _fact("sets", sets, "rows of each, once the golden set is held out", width)


def _split(split: SplitFacts, report: DataReport) -> tuple[str, str]:
    """Return how many rows of a split are used, and what more there is to say."""
    use = "are trained on" if split["role"] == "train" and report["sets"] else "can be used"
    kept = f"{split['kept']:,} of {counted(split['read'], 'row')} {use}"
    name = f"split {split['split']}"
    if split["whole"]:
        return kept, name
    first = f"{report['first_rows']:,}" if report["first_rows"] else ""
    return kept, f"{name}: only its first rows are read here, {first} at most"


def _left_out(report: DataReport, width: int) -> Iterator[Line]:
    for split in report["splits"]:
        if not split["rules"]:
            continue
        yield ()
        start = [("left out", Style.STRONG)]
        yield from _wrapped(start, f" of split {shown(split['split'])}", width, 2)
        for rule in split["rules"]:
            is_repair = rule["rows_in"] == rule["rows_out"]
            count = f"{counted(rule['rows'], 'row')}{' changed' if is_repair else ''}"
            yield from _wrapped(
                [(f"  {rule['rule']:<18} ", Style.PLAIN), (count, Style.WARN)],
                f"  {rule['reason']}", width, 4,
            )  # fmt: skip
            for row in rule["examples"][:1]:
                yield from _wrapped([("    ", Style.DIM)], f"e.g. {_example(row)}", width, 6)


def _example(row: LeftOutRow) -> str:
    where = f"line {row['line']}" if "line" in row else f"row {row['row']}"
    named = f", {row['field']}" if "field" in row else ""
    return shown(f"{row['file']} {where}{named}: {row['what']}")


def _unused(report: DataReport, width: int, glyphs: Glyphs) -> Iterator[Line]:
    if not report["unused"]:
        return
    yield ()
    yield (("not used", Style.STRONG),)
    for one in report["unused"]:
        name = shown(f"{one['kind']} {one['name']}".strip())
        how = "; to use it:" if one["use"] else ""
        text = f"  in {percent(one['share'], 0)} of the rows{how}"
        yield from _wrapped([(f"  {name}", Style.WARN)], text, width, 4)
        if one["use"]:  # not wrapped: people copy it
            yield ((f"    {glyphs.to} ", Style.DIM), (shown(one["use"]), Style.STRONG))


def _lengths(report: DataReport, width: int, glyphs: Glyphs) -> Iterator[Line]:
    tokens, limit = report["tokens"], report["max_length"]
    trained = tokens["trained"]
    yield ()
    words = f"{tokens['total']:,}"
    if trained is not None:
        words += f", of which {trained:,} ({percent(trained / tokens['total'], 0)}) are trained"
    yield from _fact("tokens", words, "", width)
    lengths = f"half of the rows up to {tokens['p50']:,}, 90 % up to {tokens['p90']:,}"
    yield from _fact("lengths", f"{lengths}, longest {tokens['max']:,}", "", width)
    edges, rows = report["lengths"]["edges"], report["lengths"]["rows"]
    if len(rows) > 1:
        bars = sparkline([float(count) for count in rows], width - _LABEL - 20, glyphs)
        low, high = f"{edges[0]:,.0f} ", f" {edges[-1] - 1:,.0f} tokens"
        yield (
            (" " * _LABEL, Style.PLAIN), (low, Style.DIM), (bars, Style.ACCENT), (high, Style.DIM),
        )  # fmt: skip
    yield from _fact("limit", f"{limit['value']:,} tokens a row", shown(limit["reason"]), width)


def _labels(report: DataReport, width: int) -> Iterator[Line]:
    labels = report["labels"]
    if not labels:
        return
    listed = ", ".join(f"{shown(one['label'])} {one['rows']:,}" for one in labels[:_LABELS])
    more = f" and {len(labels) - _LABELS:,} more" if len(labels) > _LABELS else ""
    yield from _fact("labels", f"{len(labels):,}", f"rows of each: {listed}{more}", width)


def _rows(report: DataReport, width: int, glyphs: Glyphs, *, marks: bool) -> Iterator[Line]:
    yield ()
    if report["labels"]:
        how = "the label is learned"
    elif marks:
        how = f"what is trained stands in {_OPEN} {_CLOSE}"
    else:
        how = "what is trained is bright, the rest is only read"
    start = [("rows as the model sees them", Style.STRONG)]
    yield from _wrapped(start, f"  {how}", width, 2, Style.DIM)
    for row in report["rows"]:
        yield ()
        yield from _wrapped([], _title(row), width, 4)
        lines = list(_text(row, width, glyphs, marks=marks))
        yield from _shortened(lines, glyphs)
        if "label" in row:
            mark = f"{_OPEN}{shown(row['label'])}{_CLOSE}" if marks else shown(row["label"])
            yield ((f"  {glyphs.to} ", Style.DIM), (mark, Style.GOOD))


_OPEN, _CLOSE = "[[", "]]"


def _title(row: ReportRow) -> str:
    where = f"line {row['line']}" if "line" in row else f"row {row['row']}"
    trained = "" if row["trained"] is None else f", {row['trained']:,} trained"
    return shown(f"{row['file']} {where}: {counted(row['tokens'], 'token')}{trained}")


def _text(row: ReportRow, width: int, glyphs: Glyphs, *, marks: bool) -> Iterator[Line]:
    """Yield the text of a row line by line, behind a sign that shows where a row goes on."""
    line: list[Span] = []
    for text, style in _spans(row, glyphs, marks=marks):
        first, *others = text.split("\n")
        line.append((shown(first), style))
        for other in others:
            yield from _quoted(line, width, glyphs)
            line = [(shown(other), style)]
    if any(text for text, _ in line):
        yield from _quoted(line, width, glyphs)


def _spans(row: ReportRow, glyphs: Glyphs, *, marks: bool) -> Iterator[Span]:
    for piece in row["pieces"]:
        text = _ends(piece["text"].replace("\r\n", "\n"), glyphs)
        if piece["trained"]:
            yield (f"{_OPEN}{text}{_CLOSE}" if marks else text), Style.GOOD
        else:
            yield text, Style.PLAIN if "label" in row else Style.DIM


def _ends(text: str, glyphs: Glyphs) -> str:
    """Return a text, a long one without its middle."""
    if len(text) <= _PIECE:
        return text
    half = _PIECE // 2
    return f"{text[:half]} {glyphs.cut} {text[-half:]}"


def _quoted(line: Sequence[Span], width: int, glyphs: Glyphs) -> Iterator[Line]:
    for part in wrap(tuple(line), width - 4):
        yield ((f"  {glyphs.quote} ", Style.DIM), *part)


def _shortened(lines: Sequence[Line], glyphs: Glyphs) -> Iterator[Line]:
    """Yield the lines, of too many the first and the last: an answer stands at the end."""
    if len(lines) <= _ROW_LINES:
        yield from lines
        return
    half = _ROW_LINES // 2
    yield from lines[:half]
    hidden = f"  {glyphs.cut} {len(lines) - 2 * half} more lines; --json has them"
    yield ((hidden, Style.DIM),)
    yield from lines[-half:]


def _warnings(report: DataReport, width: int, glyphs: Glyphs) -> Iterator[Line]:
    for warning in report["warnings"]:
        yield ()
        yield from _wrapped([(f"{glyphs.warn} ", Style.WARN)], shown(warning["message"]), width, 2)
        if warning["hint"]:
            text = shown(warning["hint"])
            yield from _wrapped([(f"  {glyphs.to} ", Style.DIM)], text, width, 4, Style.STRONG)


def _choice(label: str, choice: Choice, width: int) -> Iterator[Line]:
    return _fact(label, shown(choice["value"]), shown(choice["reason"]), width)


def _fact(label: str, value: str, reason: str, width: int) -> Iterator[Line]:
    start: list[Span] = [(f"{label:<{_LABEL}}", Style.DIM), (value, Style.STRONG)]
    yield from wrap((*start, (f"  {reason}" if reason else "", Style.DIM)), width, _LABEL)


def _wrapped(
    start: Sequence[Span], text: str, width: int, indent: int, style: Style = Style.PLAIN
) -> Iterator[Line]:
    yield from wrap((*start, (text, style)), width, indent)
