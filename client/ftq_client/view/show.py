"""What `ftq show` tells of one job: the record, and what its events have told."""

from collections.abc import Mapping

from ftq_client.view import format as fmt
from ftq_client.view.event_wording import memory_words, replay_lines
from ftq_client.view.fragments import field, yaml_word
from ftq_client.view.lines import ASCII, shown, text_of
from ftq_client.view.model import JobView
from ftq_client.view.next_commands import next_commands, with_job
from ftq_client.view.summary import score_lines, time_line
from ftq_client.view.tables import eta_of, step_of, took_of
from ftq_shared.events import Data

Row = Mapping[str, object]


def show_rows(row: Row, view: JobView, changed: Mapping[str, object]) -> dict[str, object]:
    """Return what to show of a job, in order; what is not there yet is empty.

    `row` is its record, `changed` the fields of its spec that differ from their defaults.
    """
    return {
        "job": row.get("id"),
        "name": row.get("name"),
        "state": row.get("state"),
        "phase": row.get("phase"),
        "waiting": "" if view.terminal else row.get("waiting"),
        "queue position": row.get("queue_position"),
        "took": took_of(row),
        "created": row.get("created"),
        "ended": row.get("ended"),
        "owner": row.get("owner"),
        "host": row.get("host"),
        "gpus": row.get("gpus"),
        "attempt": row.get("attempt") if row.get("attempt") != 1 else None,
        "step": step_of(row),
        "step's loss": fmt.figure(row["loss"]) if row.get("loss") is not None else "",
        "eta": eta_of(row),
        "spec": changed,
        "resolved": {name: _resolved(data) for name, data in view.resolved.items()},
        "memory": memory_words(view.memory),
        "golden": dict(score_lines(view, ASCII)),
        **replay_lines(view.replayed),
        "times": text_of(time_line(view, ASCII)),
        "url": row.get("url"),
        "revision": field(view.published, "revision"),
        "warnings": {str(n): _warning(data) for n, data in enumerate(view.warnings, 1)},
        "error": _error(row.get("error"), str(row.get("id"))),
        "next": next(iter(next_commands(view)), f"ftq tail {shown(row.get('id'))}"),
    }


def result_json(view: JobView) -> dict[str, object]:
    """Return the same for programs: what the events add to the record."""
    return {
        "golden": {"before": view.before, "after": view.after},
        "resolved": {name: data.get("value") for name, data in view.resolved.items()},
        "memory": view.memory,
        "revision": view.published.get("revision"),
        "warnings": [data.get("message") for data in view.warnings],
        "replayed": view.replayed,
        "phase_seconds": {str(phase): mark.seconds for phase, mark in view.phases.items()},
    }


def _resolved(data: Data) -> str:
    return f"{yaml_word(data.get('value'))}{field(data, 'reason', '  (', ')')}"


def _warning(data: Data) -> str:
    return f"{field(data, 'message')}{field(data, 'hint', ' -> ')}"


def _error(error: object, job: str) -> dict[str, object]:
    if not isinstance(error, Mapping):
        return {}
    hint = with_job(shown(error.get("hint") or ""), job)
    kept = {key: value for key, value in error.items() if key not in ("exit_code", "traceback")}
    return {**kept, "hint": hint}
