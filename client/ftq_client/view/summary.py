"""The closing block of a job: how it ended, its results, and what to type next."""

import shlex

from ftq_client.view import format as fmt
from ftq_client.view.fragments import METRICS, Metric, field, names, score, where
from ftq_client.view.lines import ASCII, Glyphs, Line, Span, Style, shown
from ftq_client.view.model import JobView
from ftq_shared.events import Data
from ftq_shared.states import JobState, Phase

_LABEL = 15  # columns of the labels on the left
INDENT = 2 + _LABEL  # where the words begin
# The setting that an error is about, by the error's code.
_FIELDS = {
    "no_such_model": "model",
    "no_such_dataset": "dataset",
    "no_write_access": "publish.repo",
    "timeout": "resources.max_runtime",
    "too_slow_on_cpu": "resources.gpus",
}
_OUTCOMES = {
    JobState.SUCCEEDED: ("succeeded", Style.GOOD),
    JobState.FAILED: ("failed", Style.BAD),
    JobState.CANCELLED: ("cancelled", Style.WARN),
}


def summary_lines(view: JobView, glyphs: Glyphs = ASCII) -> list[Line]:
    """Return the closing block of a job that has ended, an empty list for one that has not."""
    if not view.terminal:
        return []
    lines: list[Line] = [(), _headline(view, glyphs)]
    if view.state is JobState.FAILED:
        lines += _failure(view)
    elif view.reason:
        lines.append(_row("reason", shown(view.reason)))
    lines += _scores(view, glyphs)
    lines += _times(view, glyphs)
    if view.state is JobState.SUCCEEDED:
        lines += _results(view)
    lines += [_row("next", command, Style.ACCENT) for command in next_commands(view)]
    return lines


def _row(label: str, text: str, style: Style = Style.PLAIN) -> Line:
    return ((f"  {label:<{_LABEL}}", Style.DIM), (text, style))


def _headline(view: JobView, glyphs: Glyphs) -> Line:
    assert view.state is not None
    word, style = _OUTCOMES[view.state]
    sign = {Style.GOOD: glyphs.good, Style.BAD: glyphs.bad}.get(style, glyphs.warn)
    name = f" {shown(view.name)}" if view.name else ""
    total = view.updated - view.started if view.started else None
    at = f" in {view.phase}" if view.phase and view.state is not JobState.SUCCEEDED else ""
    after = f" after {fmt.duration(total)}" if total is not None else ""
    return ((f"{sign} {shown(view.job)}{name} {word}{at}", style), (after, Style.DIM))


def _failure(view: JobView) -> list[Line]:
    error = view.error
    code, message = field(error, "code"), field(error, "message")
    lines = [_row("error", ": ".join(p for p in (code, message) if p) or shown(view.reason))]
    if view.reason and message and view.reason not in message:
        lines.append(_row("reason", shown(view.reason)))
    if place := where(error):
        lines.append(_row("where", place))
    if error.get("nearest"):
        lines.append(_row("nearest", names(error["nearest"])))
    if hint := field(error, "hint"):
        lines.append(_row("hint", hint, Style.STRONG))
    return lines


def _scores(view: JobView, glyphs: Glyphs) -> list[Line]:
    """Return a line per score of the golden set, before and after."""
    before, after = view.before, view.after
    lines = [
        _score(metric, before, after, glyphs)
        for metric in METRICS
        if before.get(metric.key) is not None or after.get(metric.key) is not None
    ]
    rows = after.get("rows") or before.get("rows")
    if lines and rows is not None:
        lines[0] = (*lines[0], (f"  on {fmt.count(rows)} golden rows", Style.DIM))
    return lines


def _score(metric: Metric, before: Data, after: Data, glyphs: Glyphs) -> Line:
    start, end = (
        fmt.UNKNOWN if scores.get(metric.key) is None else score(scores, metric)
        for scores in (before, after)
    )
    first, last = fmt.number(before.get(metric.key)), fmt.number(after.get(metric.key))
    better: Span = ("", Style.PLAIN)
    if first is not None and last is not None and first != last:
        good = (last < first) == (metric.key == "loss")
        better = (f"  {_change(first, last, metric.key)}", Style.GOOD if good else Style.WARN)
    return (*_row(metric.name, f"{start} {glyphs.to} "), (end, Style.STRONG), better)


def _change(first: float, last: float, key: str) -> str:
    """Return the change of a score: of a loss in percent of `first`, of a share in points."""
    if key == "loss":
        return f"{100 * (last - first) / first:+.0f}%" if first else ""
    return f"{100 * (last - first):+.1f} points"


def _times(view: JobView, glyphs: Glyphs) -> list[Line]:
    took = [(phase, view.phases[phase].seconds) for phase in Phase]
    known = [f"{phase} {fmt.duration(s)}" for phase, s in took if s is not None]
    return [_row("time", f" {glyphs.sep} ".join(known))] if known else []


def _results(view: JobView) -> list[Line]:
    url = field(view.published, "url")
    if not url:
        return [_row("model", "saved with the job's files, not published")]
    revision = field(view.published, "revision")[:12]
    return [_row("model", url, Style.ACCENT), _row("revision", revision)]


def next_commands(view: JobView) -> list[str]:
    """Return what to type next, ready to be copied."""
    job = shown(view.job)
    if view.state is JobState.SUCCEEDED:
        return [f"ftq fetch {job}"]
    if view.state is JobState.CANCELLED:
        return [f"ftq retry {job}"]
    fix = _fix(view.error)
    return [f"ftq retry {job} --set {fix}" if fix else f"ftq retry {job}", f"ftq show {job}"]


def _fix(error: Data) -> str:
    """Return the setting that would mend the job, empty where the error does not name one."""
    field = _FIELDS.get(str(error.get("code")), error.get("field"))
    if field not in (*_FIELDS.values(), "dataset"):
        return ""
    nearest = error.get("nearest")
    best = nearest[0] if isinstance(nearest, list) and nearest else None
    return f"{field}={shlex.quote(shown(best)) if best else '...'}"
