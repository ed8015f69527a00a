"""The words of every event, the same on a terminal and in a log file.

`phrase` turns an event into a `Phrase`; `plain` writes it on one greppable line, `live` gives it
colours and a place. Every text that comes from outside goes through `shown`.
"""

from collections.abc import Callable, Mapping

from ftq_client.view import format as fmt
from ftq_client.view.event_data import (
    CheckData,
    CheckpointData,
    CleaningData,
    DatasetData,
    ErrorData,
    EvalData,
    GoldenData,
    GuardData,
    LogData,
    PhaseFinishedData,
    PhaseStartedData,
    ProgressData,
    PublishedData,
    ResolvedData,
    ResumedData,
    SampleData,
    StateData,
    StepData,
    T,
    TruncatedData,
    VerificationData,
    WaitingData,
    WarningData,
    data_of,
)
from ftq_client.view.lines import Glyphs, Line, Span, Style, shown
from ftq_client.view.phrases import (
    METRICS,
    Phrase,
    names,
    parts_line,
    percent_of,
    plain_line,
    said,
    score,
    step_line,
    took,
    where,
)
from ftq_shared.events import Event, EventType
from ftq_shared.states import JobState


def phrase(event: Event, glyphs: Glyphs) -> Phrase:
    """Return an event in words; an event with odd fields still gives a line."""
    return _WORDINGS[event.type](event, glyphs)


_STATE_STYLES: dict[str, Style] = {
    JobState.SUCCEEDED: Style.GOOD,
    JobState.FAILED: Style.BAD,
    JobState.CANCELLED: Style.WARN,
}


def _state(event: Event, data: StateData, glyphs: Glyphs) -> Phrase:
    state = shown(data.get("state"))
    gpus = data.get("gpus")
    facts = (
        state,
        f"on {shown(event.host)}" if state in ("placed", "running") and event.host else "",
        f"GPU {names(gpus)}" if gpus else "",
        said(data, "next", "next is "),
        said(data, "reason"),
        said(data, "exit_code", "exit code "),
    )
    # A reason is given where something was not as usual.
    usual = Style.WARN if data.get("reason") else Style.PLAIN
    style = _STATE_STYLES.get(state, usual)
    return Phrase("state", parts_line(glyphs, *facts, first=style), style)


def _waiting(event: Event, data: WaitingData, glyphs: Glyphs) -> Phrase:
    facts = (said(data, "reason"), said(data, "position", "position "))
    return Phrase("waiting", parts_line(glyphs, *facts), Style.WARN, hint=said(data, "unblock"))


def _phase_started(event: Event, data: PhaseStartedData, glyphs: Glyphs) -> Phrase:
    facts = (
        f"on {shown(event.host)}" if event.host else "started",
        f"attempt {event.attempt}" if event.attempt else "",
        names(data["devices"]) if data.get("devices") else "",
        "warm start" if data.get("warm") else "",
        said(data, "pid", "pid "),
    )
    return Phrase("started", parts_line(glyphs, *facts))


def _phase_finished(event: Event, data: PhaseFinishedData, glyphs: Glyphs) -> Phrase:
    return Phrase("finished", plain_line(f"in {fmt.duration(data.get('seconds'))}"), Style.GOOD)


def _resolved(event: Event, data: ResolvedData, glyphs: Glyphs) -> Phrase:
    value = (f"{shown(data.get('field'))} = {shown(data.get('value'))}", Style.STRONG)
    return Phrase("resolved", (value, (said(data, "reason", "  "), Style.DIM)))


def _result(head: str, data: CheckData | VerificationData, after: Span, hint: str = "") -> Phrase:
    """Return a result in words: ok or not, of what; its message has the figures in it."""
    style = Style.GOOD if data.get("ok") else Style.BAD
    line: Line = ((said(data, "message"), Style.PLAIN), after)
    return Phrase(head, line, style, subject=shown(data.get("name")), hint=hint)


def _check(event: Event, data: CheckData, glyphs: Glyphs) -> Phrase:
    seconds = took(data.get("seconds"))
    after: Span = (f"  {seconds}" if seconds else "", Style.DIM)
    return _result("check", data, after, said(data, "hint"))


def _verification(event: Event, data: VerificationData, glyphs: Glyphs) -> Phrase:
    return _result("verification", data, ("", Style.DIM))


def _dataset(event: Event, data: DatasetData, glyphs: Glyphs) -> Phrase:
    tokens, splits = data.get("tokens"), data.get("splits")
    rows = data.get("rows")
    facts = (
        "rows not counted yet" if rows is None else f"{fmt.count(rows)} rows",
        f"columns {names(data['columns'])}" if data.get("columns") else "",
        said(data, "shape", "read as "),
        said(data, "task", "task "),
        said(data, "labels", "", " labels"),
        f"tokens per row {_pairs(tokens)}" if isinstance(tokens, Mapping) else "",
        f"splits {_pairs(splits)}" if isinstance(splits, Mapping) else "",
        said(data, "source", "from "),
    )
    return Phrase("dataset", parts_line(glyphs, *facts, first=Style.STRONG))


def _pairs(table: Mapping[str, object]) -> str:
    """Return names with their figures; a figure that is not known yet is left out."""
    return ", ".join(
        shown(key) if value is None else f"{shown(key)} {fmt.count(value)}"
        for key, value in table.items()
    )


def _sample(event: Event, data: SampleData, glyphs: Glyphs) -> Phrase:
    """Word a row as the model will see it; the part that is trained has a sign of its own."""
    whole = str(data.get("text") or "")
    at = _trained_from(whole, str(data.get("trained") or ""))
    # All of it is trained: nothing to tell apart.
    split = at if 0 < at < len(whole) else None
    facts = (
        f"row {shown(data.get('row'))}",
        said(data, "set"),
        said(data, "label", "label "),
        said(data, "tokens", "", " tokens"),
        f"{glyphs.trained} is what the loss counts" if split else "",
    )
    lines = _quoted(whole[:split], f"{glyphs.quote} ", Style.PLAIN)
    if split:
        lines += _quoted(whole[split:], f"{glyphs.trained} ", Style.GOOD)
    return Phrase("sample", parts_line(glyphs, *facts, first=Style.STRONG), more=tuple(lines))


def _quoted(text: str, sign: str, style: Style) -> list[Line]:
    return [((sign, style), (shown(row), style)) for row in text.strip("\r\n").split("\n")]


def _trained_from(whole: str, trained: str) -> int:
    """Return where the trained part begins, -1 when it cannot be told.

    The event's text is cut, so the end of the trained part may be missing.
    """
    at = whole.rfind(trained) if trained else -1
    if trained and at < 0:
        at = whole.find(trained[:40])
        at = at if at >= 0 and trained.startswith(whole[at:]) else -1
    return at


def _cleaning(event: Event, data: CleaningData, glyphs: Glyphs) -> Phrase:
    rows_in, rows_out = fmt.number(data.get("rows_in")), fmt.number(data.get("rows_out"))
    gone = rows_in - rows_out if rows_in is not None and rows_out is not None else 0
    line: Line = (
        (f"{shown(data.get('rule')):<24} ", Style.PLAIN),
        (f"{fmt.count(rows_in)} {glyphs.to} {fmt.count(rows_out)} rows", Style.PLAIN),
        (f"  {-gone:+,.0f}" if gone else "", Style.WARN),
        (said(data, "reason", "  "), Style.DIM),
    )
    examples = data.get("examples")
    found = examples if isinstance(examples, list) else []
    return Phrase("cleaning", line, more=tuple(((_finding(e), Style.DIM),) for e in found[:3]))


def found_nothing(rules: int) -> Phrase:
    """Word the cleaning rules that left every row as it was."""
    text = "1 rule found nothing" if rules == 1 else f"{rules} rules found nothing"
    return Phrase("cleaning", ((text, Style.DIM),))


def _finding(example: object) -> str:
    """Return one finding of a cleaning rule: where it was, and what was wrong."""
    if not isinstance(example, Mapping):
        return shown(example)
    where = " ".join(
        (f"{key} " if key != "file" else "") + shown(example[key])
        for key in ("file", "line", "row", "field")
        if example.get(key) is not None
    )
    known = ("file", "line", "row", "field")
    rest = ", ".join(shown(value) for key, value in example.items() if key not in known)
    return ": ".join(part for part in (where, rest) if part)


def _golden(event: Event, data: GoldenData, glyphs: Glyphs) -> Phrase:
    strata = data.get("strata")
    facts = (
        f"{fmt.count(data.get('rows'))} rows from {shown(data.get('source'))}",
        said(data, "reason"),
        f"{len(strata)} strata" if isinstance(strata, Mapping) and strata else "",
        f"validation {fmt.count(data['validation_rows'])} rows"
        if data.get("validation_rows") is not None
        else "",
        f"{fmt.count(data['removed_from_train'])} equal rows left train"
        if data.get("removed_from_train")
        else "",
        f"sha256 {shown(data.get('sha256'))[:12]}",
    )
    return Phrase("golden", parts_line(glyphs, *facts, first=Style.STRONG))


def _progress(event: Event, data: ProgressData, glyphs: Glyphs) -> Phrase:
    done, total, unit = data.get("done"), fmt.number(data.get("total")), data.get("unit")
    text = fmt.amount(done, unit)
    if total:
        done_text = text if unit == "bytes" else fmt.count(done)
        text = f"{done_text} of {fmt.amount(total, unit)}  {percent_of(done, total)}"
    name = said(data, "task", after="  ")
    return Phrase("progress", ((name, Style.PLAIN), (text, Style.STRONG)))


def _step(event: Event, data: StepData, glyphs: Glyphs) -> Phrase:
    return Phrase("step", step_line(data))


def _eval(event: Event, data: EvalData, glyphs: Glyphs) -> Phrase:
    scores = [f"{m.name} {score(data, m)}" for m in METRICS if m.key in data]
    when = shown(data.get("when"))
    step = said(data, "step", "step ")
    lead = f"{shown(data.get('set'))} {step if when == 'during' and step else when}"
    best: Span = (f"  {glyphs.good} best so far" if data.get("best") else "", Style.GOOD)
    rows = f"{fmt.count(data['rows'])} rows" if data.get("rows") is not None else ""
    figures: Span = ("  " + "  ".join(scores), Style.STRONG)
    return Phrase(
        "eval", ((lead, Style.ACCENT), figures, (f"  {rows}" if rows else "", Style.DIM), best)
    )


def _checkpoint(event: Event, data: CheckpointData, glyphs: Glyphs) -> Phrase:
    facts = (
        f"step {shown(data.get('step'))}",
        fmt.size(data["bytes"]) if data.get("bytes") is not None else "",
        took(data.get("seconds")),
        "best so far" if data.get("best") else "",
        said(data, "path"),
    )
    return Phrase("checkpoint", parts_line(glyphs, *facts))


def _resumed(event: Event, data: ResumedData, glyphs: Glyphs) -> Phrase:
    facts = (f"from step {shown(data.get('step'))}", said(data, "reason"))
    return Phrase("resumed", parts_line(glyphs, *facts, first=Style.STRONG), Style.WARN)


def _guard(event: Event, data: GuardData, glyphs: Glyphs) -> Phrase:
    facts = (said(data, "name", after=": ") + said(data, "message"), said(data, "action"))
    return Phrase("guard", parts_line(glyphs, *facts), Style.WARN)


def _published(event: Event, data: PublishedData, glyphs: Glyphs) -> Phrase:
    facts = (
        said(data, "url"),
        f"revision {shown(data.get('revision'))[:12]}",
        "private" if data.get("private") else "",
    )
    return Phrase("published", parts_line(glyphs, *facts, first=Style.STRONG), Style.GOOD)


def _log(event: Event, data: LogData, glyphs: Glyphs) -> Phrase:
    return Phrase("log", ((shown(data.get("line")), Style.DIM),))


def _warning(event: Event, data: WarningData, glyphs: Glyphs) -> Phrase:
    return Phrase("warning", plain_line(said(data, "message")), Style.WARN, hint=said(data, "hint"))


def _error(event: Event, data: ErrorData, glyphs: Glyphs) -> Phrase:
    place = where(data)
    line: Line = (
        (f"{shown(data.get('code'))}: ", Style.BAD),
        (said(data, "message"), Style.STRONG),
        (f" ({place})" if place else "", Style.PLAIN),
    )
    nearest = data.get("nearest")
    near = [f"nearest: {names(nearest)}"] if nearest else []
    trace = [shown(text) for text in str(data.get("traceback") or "").splitlines()]
    more = tuple(((text, Style.DIM),) for text in near + trace)
    return Phrase("error", line, Style.BAD, hint=said(data, "hint"), more=more)


def _truncated(event: Event, data: TruncatedData, glyphs: Glyphs) -> Phrase:
    first, last = fmt.count(data.get("first")), fmt.count(data.get("last"))
    text = f"events {first} to {last} are no longer held one by one"
    kept = f"; {fmt.count(data['kept'])} of them follow" if data.get("kept") is not None else ""
    return Phrase("truncated", plain_line(text + kept), Style.WARN)


def _reads(
    kind: type[T], word: Callable[[Event, T, Glyphs], Phrase]
) -> Callable[[Event, Glyphs], Phrase]:
    return lambda event, glyphs: word(event, data_of(event, kind), glyphs)


_WORDINGS: dict[EventType, Callable[[Event, Glyphs], Phrase]] = {
    EventType.STATE: _reads(StateData, _state),
    EventType.WAITING: _reads(WaitingData, _waiting),
    EventType.PHASE_STARTED: _reads(PhaseStartedData, _phase_started),
    EventType.PHASE_FINISHED: _reads(PhaseFinishedData, _phase_finished),
    EventType.RESOLVED: _reads(ResolvedData, _resolved),
    EventType.CHECK: _reads(CheckData, _check),
    EventType.DATASET: _reads(DatasetData, _dataset),
    EventType.SAMPLE: _reads(SampleData, _sample),
    EventType.CLEANING: _reads(CleaningData, _cleaning),
    EventType.GOLDEN: _reads(GoldenData, _golden),
    EventType.PROGRESS: _reads(ProgressData, _progress),
    EventType.STEP: _reads(StepData, _step),
    EventType.EVAL: _reads(EvalData, _eval),
    EventType.CHECKPOINT: _reads(CheckpointData, _checkpoint),
    EventType.RESUMED: _reads(ResumedData, _resumed),
    EventType.GUARD: _reads(GuardData, _guard),
    EventType.VERIFICATION: _reads(VerificationData, _verification),
    EventType.PUBLISHED: _reads(PublishedData, _published),
    EventType.LOG: _reads(LogData, _log),
    EventType.WARNING: _reads(WarningData, _warning),
    EventType.ERROR: _reads(ErrorData, _error),
    EventType.TRUNCATED: _reads(TruncatedData, _truncated),
}
