"""The words of every event, the same on a terminal and in a log file.

`phrase` turns an event into a `Phrase`; `plain` writes it on one greppable line, `live` gives it
colours and a place. Every text that comes from outside goes through `shown`.
"""

from collections.abc import Mapping

from ftq_client.view import format as fmt
from ftq_client.view import wording_data
from ftq_client.view.lines import Glyphs, Ink, Line, Span, shown
from ftq_client.view.phrases import (
    METRICS,
    Data,
    Phrase,
    Wording,
    facts_line,
    interval,
    names,
    percent_of,
    plain_line,
    said,
    took,
    where,
)
from ftq_client.view.steps import step_line
from ftq_shared.events import Event, EventType
from ftq_shared.states import JobState


def phrase(event: Event, glyphs: Glyphs) -> Phrase:
    """Return an event in words; an event with odd fields still gives a line."""
    data = event.data if isinstance(event.data, Mapping) else {}
    return _WORDINGS[event.type](event, data, glyphs)


_STATE_INKS: dict[str, Ink] = {
    JobState.SUCCEEDED: Ink.GOOD,
    JobState.FAILED: Ink.BAD,
    JobState.CANCELLED: Ink.WARN,
}


def _state(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
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
    usual = Ink.WARN if data.get("reason") else Ink.PLAIN
    ink = _STATE_INKS.get(state, usual)
    return Phrase("state", facts_line(glyphs, *facts, first=ink), ink)


def _waiting(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    facts = (said(data, "reason"), said(data, "position", "position "))
    return Phrase("waiting", facts_line(glyphs, *facts), Ink.WARN, hint=said(data, "unblock"))


def _phase_started(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    facts = (
        f"on {shown(event.host)}" if event.host else "started",
        f"attempt {event.attempt}" if event.attempt else "",
        names(data["devices"]) if data.get("devices") else "",
        "warm start" if data.get("warm") else "",
        said(data, "pid", "pid "),
    )
    return Phrase("started", facts_line(glyphs, *facts))


def _phase_finished(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    return Phrase("finished", plain_line(f"in {fmt.duration(data.get('seconds'))}"), Ink.GOOD)


def _resolved(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    value = (f"{shown(data.get('field'))} = {shown(data.get('value'))}", Ink.STRONG)
    return Phrase("resolved", (value, (said(data, "reason", "  "), Ink.DIM)))


def _result(head: str) -> Wording:
    """Return the wording of a result: ok or not, of what; its message has the figures in it."""

    def word(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
        seconds = took(data.get("seconds"))
        return Phrase(
            head,
            ((said(data, "message"), Ink.PLAIN), (f"  {seconds}" if seconds else "", Ink.DIM)),
            Ink.GOOD if data.get("ok") else Ink.BAD,
            subject=shown(data.get("name")),
            hint=said(data, "hint"),
        )

    return word


def _progress(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    done, total, unit = data.get("done"), fmt.number(data.get("total")), data.get("unit")
    text = fmt.amount(done, unit)
    if total:
        done_text = text if unit == "bytes" else fmt.count(done)
        text = f"{done_text} of {fmt.amount(total, unit)}  {percent_of(done, total)}"
    name = said(data, "task", after="  ")
    return Phrase("progress", ((name, Ink.PLAIN), (text, Ink.STRONG)))


def _step(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    return Phrase("step", step_line(data))


def _eval(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    scores = [f"{name} {interval(data, k, word)}" for k, name, word in METRICS if k in data]
    when = shown(data.get("when"))
    step = said(data, "step", "step ")
    lead = f"{shown(data.get('set'))} {step if when == 'during' and step else when}"
    best: Span = (f"  {glyphs.good} best so far" if data.get("best") else "", Ink.GOOD)
    rows = f"{fmt.count(data['rows'])} rows" if data.get("rows") is not None else ""
    figures: Span = ("  " + "  ".join(scores), Ink.STRONG)
    return Phrase(
        "eval", ((lead, Ink.ACCENT), figures, (f"  {rows}" if rows else "", Ink.DIM), best)
    )


def _checkpoint(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    facts = (
        f"step {shown(data.get('step'))}",
        fmt.size(data["bytes"]) if data.get("bytes") is not None else "",
        took(data.get("seconds")),
        "best so far" if data.get("best") else "",
        said(data, "path"),
    )
    return Phrase("checkpoint", facts_line(glyphs, *facts))


def _resumed(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    facts = (f"from step {shown(data.get('step'))}", said(data, "reason"))
    return Phrase("resumed", facts_line(glyphs, *facts, first=Ink.STRONG), Ink.WARN)


def _guard(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    facts = (said(data, "name", after=": ") + said(data, "message"), said(data, "action"))
    return Phrase("guard", facts_line(glyphs, *facts), Ink.WARN)


def _published(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    facts = (
        said(data, "url"),
        f"revision {shown(data.get('revision'))[:12]}",
        "private" if data.get("private") else "",
    )
    return Phrase("published", facts_line(glyphs, *facts, first=Ink.STRONG), Ink.GOOD)


def _log(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    return Phrase("log", ((shown(data.get("line")), Ink.DIM),))


def _warning(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    return Phrase("warning", plain_line(said(data, "message")), Ink.WARN, hint=said(data, "hint"))


def _error(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    place = where(data)
    line: Line = (
        (f"{shown(data.get('code'))}: ", Ink.BAD),
        (said(data, "message"), Ink.STRONG),
        (f" ({place})" if place else "", Ink.PLAIN),
    )
    nearest = data.get("nearest")
    near = [f"nearest: {names(nearest)}"] if nearest else []
    trace = [shown(text) for text in str(data.get("traceback") or "").splitlines()]
    more = tuple(((text, Ink.DIM),) for text in near + trace)
    return Phrase("error", line, Ink.BAD, hint=said(data, "hint"), more=more)


def _truncated(event: Event, data: Data, glyphs: Glyphs) -> Phrase:
    first, last = fmt.count(data.get("first")), fmt.count(data.get("last"))
    text = f"events {first} to {last} are no longer held one by one"
    kept = f"; {fmt.count(data['kept'])} of them follow" if data.get("kept") is not None else ""
    return Phrase("truncated", plain_line(text + kept), Ink.WARN)


_WORDINGS: dict[EventType, Wording] = {
    EventType.STATE: _state,
    EventType.WAITING: _waiting,
    EventType.PHASE_STARTED: _phase_started,
    EventType.PHASE_FINISHED: _phase_finished,
    EventType.RESOLVED: _resolved,
    EventType.CHECK: _result("check"),
    EventType.DATASET: wording_data.dataset,
    EventType.SAMPLE: wording_data.sample,
    EventType.CLEANING: wording_data.cleaning,
    EventType.GOLDEN: wording_data.golden,
    EventType.PROGRESS: _progress,
    EventType.STEP: _step,
    EventType.EVAL: _eval,
    EventType.CHECKPOINT: _checkpoint,
    EventType.RESUMED: _resumed,
    EventType.GUARD: _guard,
    EventType.VERIFICATION: _result("verification"),
    EventType.PUBLISHED: _published,
    EventType.LOG: _log,
    EventType.WARNING: _warning,
    EventType.ERROR: _error,
    EventType.TRUNCATED: _truncated,
}
