"""The live region at the foot of the terminal, as lines: pure functions of a `JobView`."""

from ftq_client.view import format as fmt
from ftq_client.view.fragments import field, percent_of, step_line
from ftq_client.view.lines import Glyphs, Line, Span, Style, cells, crop, shown, text_of, width_of
from ftq_client.view.model import JobView, Mark, ProgressTask
from ftq_shared.states import JobState, Phase

_TASKS = 4  # progress bars shown at once
_BAR = 60  # columns of a bar or curve at most: longer ones show no more
_STYLES = {
    Mark.PENDING: Style.DIM,
    Mark.CURRENT: Style.ACCENT,
    Mark.DONE: Style.GOOD,
    Mark.FAILED: Style.BAD,
}


def region_lines(view: JobView, *, now: float, width: int, glyphs: Glyphs) -> list[Line]:
    """Return the live lines of a job, each at most `width` columns."""
    lines = [_header(view, now, width, glyphs), phase_line(view, now, width, glyphs)]
    if view.waiting or view.state in (JobState.QUEUED, JobState.PLACED):
        lines.append(_waiting(view, glyphs))
    lines += _tasks(view, width, glyphs)
    if view.doing:
        lines.append(_doing(view, now, glyphs))
    if view.step and view.phase is Phase.TRAIN:
        lines += _training(view, width, glyphs)
    return [crop(line, width, glyphs.cut) for line in lines]


def compact_lines(view: JobView, *, now: float, width: int, glyphs: Glyphs) -> list[Line]:
    """Return one line of a job, for a region that several share."""
    phase, state = view.phase or "-", view.state or "unknown"
    lead: Line = (
        (f"{shown(view.job)} ", Style.STRONG),
        (f"{phase:<8} ", Style.ACCENT),
        (f"{state:<9} ", Style.PLAIN),
    )
    room = max(width - width_of(lead), 20)
    figures = step_line(view.step, width=room) if view.step else ()
    return [crop((*lead, *figures), width, glyphs.cut)]


def _header(view: JobView, now: float, width: int, glyphs: Glyphs) -> Line:
    """Return a rule with the job on its left and where it runs on its right."""
    facts = [shown(view.host)] if view.host else []
    facts += [f"attempt {view.attempt}"] if view.attempt > 1 else []
    facts += [fmt.duration(now - view.started)] if view.started is not None else []
    right = f" {glyphs.sep} ".join(facts)
    name = f" {shown(view.name)}" if view.name else ""
    left: Line = (
        (glyphs.rule * 2 + " ", Style.DIM),
        (shown(view.job), Style.STRONG),
        (text_of(crop(((name, Style.PLAIN),), max(width // 3, 8), glyphs.cut)), Style.PLAIN),
        (" ", Style.PLAIN),
    )
    gap = width - width_of(left) - cells(right) - 4
    return (
        *left,
        (glyphs.rule * max(gap, 1), Style.DIM),
        (f" {right} ", Style.PLAIN),
        (glyphs.rule * 2, Style.DIM),
    )


def phase_line(view: JobView, now: float, width: int, glyphs: Glyphs) -> Line:
    """Return the four phases with their marks, and their times where there is room."""
    for times in (True, False):
        line = _phases(view, now, glyphs, times)
        if width_of(line) <= width:
            return line
    return line


def _phases(view: JobView, now: float, glyphs: Glyphs, times: bool) -> Line:
    signs = {
        Mark.PENDING: glyphs.later,
        Mark.CURRENT: glyphs.now,
        Mark.DONE: glyphs.good,
        Mark.FAILED: glyphs.bad,
    }
    spans: list[Span] = []
    for phase, mark in view.phases.items():
        spans += [(f" {glyphs.then} ", Style.DIM)] if spans else []
        spans.append((f"{signs[mark.mark]} {phase}", _STYLES[mark.mark]))
        seconds = mark.seconds
        if mark.mark is Mark.CURRENT and mark.started is not None:
            seconds = now - mark.started
        if seconds is not None and (times or mark.mark is Mark.CURRENT):
            spans.append((f" {fmt.duration(max(seconds, 0))}", Style.DIM))
    return tuple(spans)


def _waiting(view: JobView, glyphs: Glyphs) -> Line:
    if not view.waiting:
        host = f" on {shown(view.host)}" if view.state is JobState.PLACED and view.host else ""
        return ((f"{view.state}{host}", Style.WARN),)
    position = field(view.waiting, "position", f" {glyphs.sep} position ")
    unblock = field(view.waiting, "unblock", f" {glyphs.to} ")
    return (
        (f"waiting{position}: {field(view.waiting, 'reason')}", Style.WARN),
        (unblock, Style.STRONG),
    )


def _tasks(view: JobView, width: int, glyphs: Glyphs) -> list[Line]:
    tasks = [task for task in view.tasks.values() if not task.finished]
    hidden = len(tasks) - _TASKS
    lines = [_task(task, width, glyphs) for task in tasks[-_TASKS:]]
    return [((f"and {hidden} more", Style.DIM),), *lines] if hidden > 0 else lines


def _doing(view: JobView, now: float, glyphs: Glyphs) -> Line:
    seconds = fmt.duration(max(0.0, now - view.doing_since))
    text = f"{shown(view.doing)} {glyphs.sep} {seconds}"
    return (("now      ", Style.DIM), (text, Style.PLAIN))


def _task(task: ProgressTask, width: int, glyphs: Glyphs) -> Line:
    name = crop(((shown(task.name), Style.PLAIN),), max(width // 4, 10), glyphs.cut)
    lead: Line = (*name, (" " * (max(width // 4, 10) - width_of(name) + 1), Style.PLAIN))
    facts = fmt.amount(task.done, task.unit)
    if task.total:
        facts = f"{percent_of(task.done, task.total):>4} of {fmt.amount(task.total, task.unit)}"
    facts += f" {glyphs.sep} {fmt.amount(task.rate, task.unit)}/s" if task.rate else ""
    facts += f" {glyphs.sep} eta {fmt.duration(task.eta_s)}" if task.eta_s is not None else ""
    if not task.total:
        return (*lead, (facts, Style.PLAIN))
    return (
        *lead,
        *_bar(task.done, task.total, width - width_of(lead) - cells(facts) - 1, glyphs),
        (f" {facts}", Style.PLAIN),
    )


def _bar(done: object, total: object, width: int, glyphs: Glyphs) -> Line:
    full, rest = fmt.bar(done, total, min(max(width, 4), _BAR), glyphs)
    return ((full, Style.ACCENT), (rest, Style.DIM))


def _training(view: JobView, width: int, glyphs: Glyphs) -> list[Line]:
    """Return the bar of the steps, the figures of the latest, and the curve of the loss."""
    step, steps = fmt.number(view.step.get("step")), fmt.number(view.step.get("steps"))
    eta = view.step.get("eta_s")
    left = f" {glyphs.sep} eta {fmt.duration(eta)}" if eta else ""
    facts = f" {percent_of(step, steps):>4}{left}"
    bar = _bar(step, steps, width - 9 - cells(facts), glyphs)
    figures = step_line(view.step, width=width - 9, eta=False)
    return [
        (("steps    ", Style.DIM), *bar, (facts, Style.PLAIN)),
        (("latest   ", Style.DIM), *figures),
        _curve(view, width, glyphs),
    ]


def _curve(view: JobView, width: int, glyphs: Glyphs) -> Line:
    """Return the loss as a curve, and beside it the figures to compare it with."""
    low = view.losses.low
    facts = [f"low {fmt.figure(low)}"] if low is not None else []
    validation = view.validation
    facts += [f"validation {fmt.figure(validation['loss'])}"] if validation else []
    facts += [field(view.checkpoint, "step", "saved at ")] if view.checkpoint else []
    text = f" {glyphs.sep} ".join(facts)
    while facts and width - cells(text) < 40:  # the curve comes first on a narrow terminal
        facts.pop()
        text = f" {glyphs.sep} ".join(facts)
    spark = fmt.sparkline(view.losses.values, min(width - 10 - cells(text), _BAR), glyphs)
    return (("loss     ", Style.DIM), (spark, Style.ACCENT), (f" {text}", Style.PLAIN))
