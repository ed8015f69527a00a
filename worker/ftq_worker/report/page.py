"""A `DataReport` as one HTML page: no script, nothing loaded from anywhere, every text escaped."""

from collections.abc import Iterable, Iterator, Sequence

from ftq_shared.data_report import DataReport, LeftOutRow, ReportRow, SplitFacts
from ftq_shared.paths import write_atomic
from ftq_worker.job.context import PhaseContext
from ftq_worker.report.facts import Inputs, make_report
from ftq_worker.report.plots import bars_plot, histogram_plot, shown

_LABELS = 30  # that are drawn
# Nothing but the page's own style sheet may be used, whatever stands in the rows.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #6a737d; --line: #d0d7de; --bar: #2f6fde;
  --page: #fff; --box: #f6f8fa; --mark: #d7f0dc; --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --dim: #8b949e; --line: #30363d;
  --bar: #5b9bff; --page: #0d1117; --box: #161b22; --mark: #12432a; --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
td.n, th.n { text-align: right; white-space: nowrap; }
code { font: 13px/1.5 ui-monospace, monospace; }
pre { font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
  background: var(--box); border: 1px solid var(--line); border-radius: 6px; padding: .8rem;
  color: var(--dim); }
mark { background: var(--mark); color: var(--ink); font-weight: 600; border-radius: 2px; }
.dim { color: var(--dim); } .bad { color: var(--bad); }
svg { width: 100%; max-width: 720px; height: auto; display: block; }
svg rect { fill: var(--bar); } svg line { stroke: var(--line); }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
"""


def leave_report(ctx: PhaseContext, inputs: Inputs) -> None:
    """Write the report page of a job into its folder."""
    write_atomic(ctx.paths.data_report, to_html(make_report(ctx, inputs)))


def to_html(report: DataReport) -> bytes:
    """Return the whole page."""
    title = f"What is trained: {report['dataset']}"
    body = "\n".join(
        [
            f"<h1>{shown(title)}</h1>",
            *_refusal(report),
            *_facts(report),
            *_left_out(report),
            *_lengths(report),
            *_labels(report),
            *_rows(report),
        ]
    )
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{shown(title)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
    return page.encode(errors="backslashreplace")


def _refusal(report: DataReport) -> Iterator[str]:
    if error := report["refusal"]:
        yield f'<p class="bad">Such a job is refused: {shown(error["message"])}</p>'
        yield f"<p>{shown(error.get('hint', ''))}</p>"


def _facts(report: DataReport) -> Iterator[str]:
    parts = ", ".join(f"{part}={name}" for part, name in report["columns"].items())
    tokens = report["tokens"]
    rows = [
        ("model", shown(report["model"])),
        ("task", _choice(report["task"]["value"], report["task"]["reason"])),
        ("layout", _choice(report["layout"], parts)),
        ("format", _choice(report["format"]["value"], report["format"]["reason"])),
        ("longest row", _choice(f"{report['max_length']['value']:,} tokens",
                                report["max_length"]["reason"])),
        ("tokens", shown(token_words(tokens["total"], tokens["trained"]))),
    ]  # fmt: skip
    rows += [(f"split {split['split']}", _split(split, report)) for split in report["splits"]]
    if report["sets"]:
        sets = ", ".join(f"{name} {rows:,}" for name, rows in report["sets"].items())
        rows.append(("sets", shown(sets)))
    yield _table((), ([f"<strong>{shown(name)}</strong>", text] for name, text in rows))
    for warning in report["warnings"]:
        yield f"<p>{shown(warning['message'])}<br>{_dim(warning['hint'])}</p>"


def token_words(total: int, trained: int | None) -> str:
    """Return how many tokens there are, and how many of them are trained."""
    if trained is None:
        return f"{total:,}"
    return f"{total:,}, of which {trained:,} ({trained / total:.0%}) are trained"


def _split(split: SplitFacts, report: DataReport) -> str:
    first = "" if split["whole"] else " (only its first rows were read)"
    return shown(f"{split['role']}: {split['read']:,} rows read{first}, {split['kept']:,} kept")


def _left_out(report: DataReport) -> Iterator[str]:
    for split in report["splits"]:
        if not split["rules"]:
            continue
        yield f"<h2>Left out of split {shown(split['split'])}</h2>"
        steps = [("read", split["read"])]
        steps += [(f"after {rule['rule']}", rule["rows_out"]) for rule in split["rules"]]
        yield bars_plot(steps, f"rows of split {split['split']} after each rule")
        rows = (
            [shown(r["rule"]), f"{r['rows']:,}", shown(r["reason"]), _examples(r["examples"])]
            for r in split["rules"]
        )
        yield _table(("rule", "rows", "why", "for example"), rows)
    unused = [
        [
            shown(f"{one['kind']} {one['name']}".strip()),
            f"{one['rows']:,}",
            _code(one["use"]) if one["use"] else "",
        ]
        for one in report["unused"]
    ]
    if unused:
        yield "<h2>Not used</h2>"
        yield _table(("what", "rows with it", "what would use it"), unused)
    files = [[shown(file["name"]), shown(file["reason"])] for file in report["unread_files"]]
    files += [[shown(f"split {name}"), "no part of this job"] for name in report["unused_splits"]]
    if files:
        yield "<h2>Not read</h2>"
        yield _table(("file", "why"), files)


def _examples(rows: Sequence[LeftOutRow]) -> str:
    return "<br>".join(shown(example_words(row)) for row in rows)


def example_words(row: LeftOutRow) -> str:
    """Return where a row stands and what is wrong with it."""
    line = f"line {row['line']}" if "line" in row else f"row {row['row']}"
    named = f", {row['field']}" if "field" in row else ""
    return f"{row['file']} {line}{named}: {row['what']}"


def _lengths(report: DataReport) -> Iterator[str]:
    tokens = report["tokens"]
    yield "<h2>Lengths</h2>"
    yield histogram_plot(report["lengths"], "rows by length in tokens")
    figures = f"half of the rows have up to {tokens['p50']:,} tokens, 90 % up to {tokens['p90']:,},"
    yield f"<p>{figures} 99 % up to {tokens['p99']:,}; the longest has {tokens['max']:,}.</p>"


def _labels(report: DataReport) -> Iterator[str]:
    labels = report["labels"]
    if not labels:
        return
    yield "<h2>Labels</h2>"
    yield bars_plot([(one["label"], one["rows"]) for one in labels[:_LABELS]], "rows by label")
    if len(labels) > _LABELS:
        rest = labels[_LABELS:]
        rows, rarest = sum(one["rows"] for one in rest), rest[-1]["rows"]
        yield f"<p>{len(rest):,} more labels with {rows:,} rows; the rarest has {rarest:,}.</p>"


def _rows(report: DataReport) -> Iterator[str]:
    yield "<h2>Rows as the model sees them</h2>"
    if report["labels"]:
        yield "<p>The model reads the text; it learns the label.</p>"
    else:
        yield "<p><mark>Marked text</mark> is trained; the rest is only read.</p>"
    for row in report["rows"]:
        yield f'<p class="dim">{shown(row_words(row))}</p>'
        text = "".join(
            f"<mark>{shown(piece['text'])}</mark>" if piece["trained"] else shown(piece["text"])
            for piece in row["pieces"]
        )
        label = f"<p>label <mark>{shown(row['label'])}</mark></p>" if "label" in row else ""
        yield f"<pre>{text}</pre>{label}"


def row_words(row: ReportRow) -> str:
    """Return where a row comes from and how long it is."""
    where = f"line {row['line']}" if "line" in row else f"row {row['row']}"
    trained = "" if row["trained"] is None else f", {row['trained']:,} of them trained"
    hidden = f"; {row['hidden']:,} characters are not shown" if row["hidden"] else ""
    return f"{row['file']} {where}: {row['tokens']:,} tokens{trained}{hidden}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already."""
    top = "".join(f"<th>{name}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{f'<tr>{top}</tr>' if head else ''}{body}</table>"


def _choice(value: object, reason: str) -> str:
    return f"{shown(value)} {_dim(reason)}"


def _dim(text: str) -> str:
    return f'<span class="dim">{shown(text)}</span>'


def _code(text: str) -> str:
    return f"<code>{shown(text)}</code>"
