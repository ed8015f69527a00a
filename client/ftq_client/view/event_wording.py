"""The words of every event, the same on a terminal and in a log file.

`phrase` turns an event into a `Phrase`. `plain` writes that on one greppable line; `live` gives it
colours and a place. Every text that comes from outside goes through `shown`.
"""

from collections.abc import Callable, Mapping

from ftq_client.view import format as fmt
from ftq_client.view.fragments import (
    METRICS,
    Phrase,
    field,
    names,
    parts_line,
    percent_of,
    plain_line,
    score,
    step_line,
    took,
    where,
    yaml_word,
)
from ftq_client.view.lines import Glyphs, Line, Span, Style, shown
from ftq_shared.events import Data, Event, EventType
from ftq_shared.states import JobState

Wording = Callable[[Event, Data, Glyphs], Phrase]


def phrase(event: Event, glyphs: Glyphs) -> Phrase:
    """Return an event in words; an event with odd fields still gives a line."""
    return _WORDINGS[event.type](event, event.data, glyphs)


_STATE_STYLES: dict[str, Style] = {
    JobState.SUCCEEDED: Style.GOOD,
    JobState.FAILED: Style.BAD,
    JobState.CANCELLED: Style.WARN,
}


def _state(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    state = shown(data.get("state"))
    gpus = data.get("gpus")
    parts = (
        state,
        f"on {shown(event.host)}" if state in ("placed", "running") and event.host else "",
        f"GPU {names(gpus)}" if gpus else "",
        field(data, "next", "next is "),
        field(data, "reason"),
        field(data, "exit_code", "exit code "),
    )
    # A state has a reason only where something was not as usual.
    usual = Style.WARN if data.get("reason") else Style.PLAIN
    style = _STATE_STYLES.get(state, usual)
    return Phrase("state", parts_line(glyphs, *parts, first=style), style)


def _waiting(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    parts = (field(data, "reason"), field(data, "position", "position "))
    return Phrase("waiting", parts_line(glyphs, *parts), Style.WARN, hint=field(data, "unblock"))


def _phase_started(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    parts = (
        f"on {shown(event.host)}" if event.host else "started",
        f"attempt {event.attempt}" if event.attempt else "",
        names(data["devices"]) if data.get("devices") else "",
        "warm start" if data.get("warm") else "",
        field(data, "pid", "pid "),
    )
    return Phrase("started", parts_line(glyphs, *parts))


def _phase_finished(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    return Phrase("finished", plain_line(f"in {fmt.duration(data.get('seconds'))}"), Style.GOOD)


def _resolved(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    value = (f"{shown(data.get('field'))} = {yaml_word(data.get('value'))}", Style.STRONG)
    return Phrase("resolved", (value, (field(data, "reason", "  "), Style.DIM)))


def _result(head: str, data: Data, *, after: str = "", hint: str = "") -> Phrase:
    """Return a result in words: ok or not, of what; its message has the figures in it."""
    style = Style.GOOD if data.get("ok") else Style.BAD
    line: Line = ((field(data, "message"), Style.PLAIN), (after, Style.DIM))
    return Phrase(head, line, style, subject=shown(data.get("name")), hint=hint)


def _check(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    seconds = took(data.get("seconds"))
    after = f"  {seconds}" if seconds else ""
    return _result("check", data, after=after, hint=field(data, "hint"))


def _verification(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    return _result("verification", data)


def _dataset(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    tokens, splits = data.get("tokens"), data.get("splits")
    rows = data.get("rows")
    parts = (
        "rows not counted yet" if rows is None else f"{fmt.count(rows)} rows",
        f"columns {names(data['columns'])}" if data.get("columns") else "",
        field(data, "shape", "read as "),
        field(data, "task", "task "),
        field(data, "labels", "", " labels"),
        f"tokens per row {_pairs(tokens)}" if isinstance(tokens, Mapping) else "",
        f"splits {_pairs(splits)}" if isinstance(splits, Mapping) else "",
        field(data, "source", "from "),
    )
    return Phrase("dataset", parts_line(glyphs, *parts, first=Style.STRONG))


def _pairs(table: Mapping[str, object]) -> str:
    """Return names with their figures; a figure that is not known yet is left out."""
    return ", ".join(
        shown(key) if value is None else f"{shown(key)} {fmt.count(value)}"
        for key, value in table.items()
    )


def _sample(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    """Word a row as the model will see it; a sign of its own marks the part that is trained."""
    whole = str(data.get("text") or "")
    at = _trained_from(whole, str(data.get("trained") or ""))
    # No mark where all of the text is trained, or none of it.
    split = at if 0 < at < len(whole) else None
    parts = (
        f"row {shown(data.get('row'))}",
        field(data, "set"),
        field(data, "label", "label "),
        field(data, "tokens", "", " tokens"),
        f"{glyphs.trained} is what the loss counts" if split else "",
    )
    lines = _quoted(whole[:split], f"{glyphs.quote} ", Style.PLAIN)
    if split:
        lines += _quoted(whole[split:], f"{glyphs.trained} ", Style.GOOD)
    return Phrase("sample", parts_line(glyphs, *parts, first=Style.STRONG), more=tuple(lines))


def _quoted(text: str, sign: str, style: Style) -> list[Line]:
    return [((sign, style), (shown(row), style)) for row in text.strip("\r\n").split("\n")]


def _trained_from(whole: str, trained: str) -> int:
    """Return where the trained part begins, -1 when the text does not hold it.

    The worker cuts the event's text, so the end of the trained part may be missing.
    """
    at = whole.rfind(trained) if trained else -1
    if trained and at < 0:
        at = whole.find(trained[:40])
        at = at if at >= 0 and trained.startswith(whole[at:]) else -1
    return at


def _cleaning(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    rows_in, rows_out = fmt.number(data.get("rows_in")), fmt.number(data.get("rows_out"))
    gone = rows_in - rows_out if rows_in is not None and rows_out is not None else 0
    line: Line = (
        (f"{shown(data.get('rule')):<24} ", Style.PLAIN),
        (f"{fmt.count(rows_in)} {glyphs.to} {fmt.count(rows_out)} rows", Style.PLAIN),
        (f"  {-gone:+,.0f}" if gone else "", Style.WARN),
        (field(data, "reason", "  "), Style.DIM),
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


def _golden(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    strata = data.get("strata")
    parts = (
        f"{fmt.count(data.get('rows'))} rows from {shown(data.get('source'))}",
        field(data, "reason"),
        f"{len(strata)} strata" if isinstance(strata, Mapping) and strata else "",
        f"validation {fmt.count(data['validation_rows'])} rows"
        if data.get("validation_rows") is not None
        else "",
        f"{fmt.count(data['removed_from_train'])} equal rows left train"
        if data.get("removed_from_train")
        else "",
        f"sha256 {shown(data.get('sha256'))[:12]}",
    )
    return Phrase("golden", parts_line(glyphs, *parts, first=Style.STRONG))


def _progress(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    done, total, unit = data.get("done"), fmt.number(data.get("total")), data.get("unit")
    text = fmt.amount(done, unit)
    if total:
        done_text = text if unit == "bytes" else fmt.count(done)
        text = f"{done_text} of {fmt.amount(total, unit)}  {percent_of(done, total)}"
    name = field(data, "task", after="  ")
    return Phrase("progress", ((name, Style.PLAIN), (text, Style.STRONG)))


def _step(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    return Phrase("step", step_line(data))


def _eval(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    scores = [f"{m.name} {score(data, m)}" for m in METRICS if m.key in data]
    when = shown(data.get("when"))
    step = field(data, "step", "step ")
    lead = f"{shown(data.get('set'))} {step if when == 'during' and step else when}"
    best: Span = (f"  {glyphs.good} best so far" if data.get("best") else "", Style.GOOD)
    rows = f"{fmt.count(data['rows'])} rows" if data.get("rows") is not None else ""
    figures: Span = ("  " + "  ".join(scores), Style.STRONG)
    return Phrase(
        "eval", ((lead, Style.ACCENT), figures, (f"  {rows}" if rows else "", Style.DIM), best)
    )


def _checkpoint(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    parts = (
        f"step {shown(data.get('step'))}",
        fmt.size(data["bytes"]) if data.get("bytes") is not None else "",
        took(data.get("seconds")),
        "best so far" if data.get("best") else "",
        field(data, "path"),
    )
    return Phrase("checkpoint", parts_line(glyphs, *parts))


def _resumed(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    parts = (f"from step {shown(data.get('step'))}", field(data, "reason"))
    return Phrase("resumed", parts_line(glyphs, *parts, first=Style.STRONG), Style.WARN)


def _replay_row(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    """Word a row of a replayed step: where it came from, what it weighs, how it begins."""
    parts = (
        _row_name(data),
        f"loss {fmt.figure(data.get('loss'))}",
        f"grad {fmt.short(data['grad_norm'])}" if "grad_norm" in data else "",
        f"{fmt.count(data.get('tokens'))} tokens",
        f"{fmt.count(data['trained'])} trained" if "trained" in data else "",
        field(data, "label", "label "),
    )
    text = " ".join(str(data.get("text") or "").split())
    bad = data.get("nonfinite")
    style = Style.BAD if isinstance(bad, list) and "loss" in bad else Style.STRONG
    more = (((shown(text), Style.DIM),),) if text else ()
    return Phrase("row", parts_line(glyphs, *parts, first=style), more=more)


def _row_name(data: Data) -> str:
    """Return a row's place as the data report names it: by its line, or else its number."""
    place = field(data, "line", "line ") or field(data, "row", "row ")
    return f"{field(data, 'file')} {place}".strip() or "a row without a name"


def _replayed(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    step = f"step {shown(data.get('step'))}"
    start = data.get("after_step")
    parts = (
        f"{step} of {shown(data.get('job'))}",
        f"from step {fmt.count(start)}" if start else "from the base model",
        f"{fmt.count(data.get('rows'))} rows",
        f"loss {_beside(data, 'loss')}",
        f"grad {_beside(data, 'grad_norm')}" if "grad_norm" in data else "",
        f"lr {fmt.rate(data['lr'])}" if data.get("lr") is not None else "",
    )
    style = Style.GOOD if data.get("equal") is True else Style.BAD
    return Phrase("replayed", parts_line(glyphs, *parts, first=Style.STRONG), style)


def _beside(data: Data, name: str) -> str:
    """Return a figure of a replayed step beside the one that was recorded."""
    now, was = data.get(name), data.get(f"recorded_{name}")
    if now is None and was is None:
        return "no number, as recorded"
    words = "no number" if now is None else shown(now)
    if now == was:
        return f"{words}, as recorded"
    return f"{words} instead of {'no number' if was is None else shown(was)}"


def replay_lines(data: Data) -> dict[str, str]:
    """Return the result of a replay under its labels; empty without one."""
    if not data:
        return {}
    repeated, start = data.get("repeated"), data.get("after_step")
    begun = f"the checkpoint of step {fmt.count(start)}" if start else "the base model"
    steps = "step" if repeated == 1 else "steps"
    way = f", {fmt.count(repeated)} {steps} on the way" if repeated else ""
    lines = {
        "replayed": f"step {shown(data.get('step'))} of {shown(data.get('job'))} from {begun}{way}",
        "loss": _beside(data, "loss"),
        "gradient norm": _beside(data, "grad_norm") if "grad_norm" in data else "",
        "rows": fmt.count(data.get("rows")),
    }
    return {label: text for label, text in lines.items() if text}


def _memory(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    return Phrase("memory", plain_line(memory_words(data)))


def memory_words(data: Data) -> str:
    """Word what a card held, beside what was counted for it."""
    if not data:
        return ""
    counted = data.get("counted_bytes")
    held = f"{fmt.size(data.get('peak_bytes'))} of {fmt.size(data.get('card_bytes'))} held at most"
    return held + (f", {fmt.size(counted)} counted before" if counted is not None else "")


def _guard(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    message = field(data, "name", after=": ") + field(data, "message")
    parts = (message, field(data, "action"))
    return Phrase("guard", parts_line(glyphs, *parts), Style.WARN)


def _published(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    parts = (
        field(data, "url"),
        f"revision {shown(data.get('revision'))[:12]}",
        "private" if data.get("private") else "",
    )
    return Phrase("published", parts_line(glyphs, *parts, first=Style.STRONG), Style.GOOD)


def _log(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    return Phrase("log", ((shown(data.get("line")), Style.DIM),))


def _warning(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    line = plain_line(field(data, "message"))
    return Phrase("warning", line, Style.WARN, hint=field(data, "hint"))


def _error(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    place = where(data)
    line: Line = (
        (f"{shown(data.get('code'))}: ", Style.BAD),
        (field(data, "message"), Style.STRONG),
        (f" ({place})" if place else "", Style.PLAIN),
    )
    nearest = data.get("nearest")
    near = [f"nearest: {names(nearest)}"] if nearest else []
    trace = [shown(text) for text in str(data.get("traceback") or "").splitlines()]
    more = tuple(((text, Style.DIM),) for text in near + trace)
    return Phrase("error", line, Style.BAD, hint=field(data, "hint"), more=more)


def _truncated(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    first, last = fmt.count(data.get("first")), fmt.count(data.get("last"))
    text = f"events {first} to {last} are no longer held one by one"
    kept = f"; {fmt.count(data['kept'])} of them follow" if data.get("kept") is not None else ""
    return Phrase("truncated", plain_line(text + kept), Style.WARN)


_WORDINGS: dict[EventType, Wording] = {
    EventType.STATE: _state,
    EventType.WAITING: _waiting,
    EventType.PHASE_STARTED: _phase_started,
    EventType.PHASE_FINISHED: _phase_finished,
    EventType.RESOLVED: _resolved,
    EventType.CHECK: _check,
    EventType.DATASET: _dataset,
    EventType.SAMPLE: _sample,
    EventType.CLEANING: _cleaning,
    EventType.GOLDEN: _golden,
    EventType.PROGRESS: _progress,
    EventType.STEP: _step,
    EventType.EVAL: _eval,
    EventType.CHECKPOINT: _checkpoint,
    EventType.REPLAY_ROW: _replay_row,
    EventType.REPLAYED: _replayed,
    EventType.RESUMED: _resumed,
    EventType.MEMORY: _memory,
    EventType.GUARD: _guard,
    EventType.VERIFICATION: _verification,
    EventType.PUBLISHED: _published,
    EventType.LOG: _log,
    EventType.WARNING: _warning,
    EventType.ERROR: _error,
    EventType.TRUNCATED: _truncated,
}
