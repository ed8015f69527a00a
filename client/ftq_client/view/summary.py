"""The closing block of a job: how it ended, its results, and what to type next."""

from ftq_client.view import format as fmt
from ftq_client.view.event_wording import replay_lines
from ftq_client.view.fragments import METRICS, Metric, field, names, score, where
from ftq_client.view.lines import ASCII, Glyphs, Line, Span, Style, shown, text_of
from ftq_client.view.model import JobView
from ftq_client.view.next_commands import next_commands, with_job
from ftq_shared.events import Data
from ftq_shared.judging import FEWEST_TO_JUDGE, TOO_FEW_TO_JUDGE
from ftq_shared.states import JobState, Phase

_LABEL = 15  # columns of the labels on the left
INDENT = 2 + _LABEL  # where the words begin
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
    for label, text in score_spans(view, glyphs):
        lines.append((*_row(label, "")[:1], *text))
    if times := text_of(time_line(view, glyphs)):
        lines.append(_row("time", times))
    if view.replayed:
        lines += [_row(label, text) for label, text in replay_lines(view.replayed).items()]
    elif view.state is JobState.SUCCEEDED:
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
        lines.append(_row("hint", with_job(hint, view.job), Style.STRONG))
    return lines


def score_spans(view: JobView, glyphs: Glyphs) -> list[tuple[str, Line]]:
    """Return the scores of the golden set, before and after, each under its name."""
    before, after = view.before, view.after
    lines = [
        (metric.name, _score(metric, before, after, glyphs))
        for metric in METRICS
        if before.get(metric.key) is not None or after.get(metric.key) is not None
    ]
    rows = after.get("rows") or before.get("rows")
    if lines and rows is not None:
        label, first = lines[0]
        few = f", {TOO_FEW_TO_JUDGE}" if _is_few(rows) else ""
        lines[0] = (label, (*first, (f"  on {fmt.count(rows)} golden rows{few}", Style.DIM)))
    return lines


def score_lines(view: JobView, glyphs: Glyphs) -> list[tuple[str, str]]:
    """Return the same as plain text."""
    return [(label, text_of(line)) for label, line in score_spans(view, glyphs)]


def _score(metric: Metric, before: Data, after: Data, glyphs: Glyphs) -> Line:
    start, end = (
        fmt.UNKNOWN if scores.get(metric.key) is None else score(scores, metric)
        for scores in (before, after)
    )
    first, last = fmt.number(before.get(metric.key)), fmt.number(after.get(metric.key))
    better: Span = ("", Style.PLAIN)
    if first is not None and last is not None and first != last:
        good = (last < first) == (metric.key == "loss")
        judged = Style.GOOD if good else Style.WARN
        if _is_few(after.get("rows")):  # figures, and no verdict
            judged = Style.PLAIN
        better = (f"  {_change(first, last, metric.key)}", judged)
    return ((f"{start} {glyphs.to} ", Style.PLAIN), (end, Style.STRONG), better)


def _is_few(rows: object) -> bool:
    count = fmt.number(rows)
    return count is not None and count < FEWEST_TO_JUDGE


def _change(first: float, last: float, key: str) -> str:
    """Return the change of a score: of a loss in percent of `first`, of a share in points."""
    if key == "loss":
        return f"{100 * (last - first) / first:+.0f}%" if first else ""
    return f"{100 * (last - first):+.1f} points"


def time_line(view: JobView, glyphs: Glyphs) -> Line:
    """Return how long each phase took, as far as it is known."""
    took = [(phase, view.phases[phase].seconds) for phase in Phase]
    known = [f"{phase} {fmt.duration(s)}" for phase, s in took if s is not None]
    return ((f" {glyphs.sep} ".join(known), Style.PLAIN),)


def _results(view: JobView) -> list[Line]:
    url = field(view.published, "url")
    if not url:
        return [_row("model", "saved with the job's files, not published")]
    revision = field(view.published, "revision")[:12]
    return [_row("model", url, Style.ACCENT), _row("revision", revision)]
