"""Tables of `ftq list` and `ftq workers`, and the block of `ftq show`, as text.

A pipe gets whole cells in plain aligned columns; a terminal gets colours, and columns that fit.
No rich here: `ftq list` must answer at once.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import click

from ftq_client.view import format as fmt
from ftq_client.view.fragments import percent_of, yaml_word
from ftq_client.view.lines import Style, cells, crop, shown, text_of, wrap
from ftq_shared.states import TERMINAL, JobState, Phase

Row = Mapping[str, object]
_GAP = "  "
_SMALLEST = 8  # columns that a cell keeps when the terminal is too narrow


@dataclass(frozen=True)
class Column:
    """One column: its head, its cells, and how soon a narrow terminal drops it."""

    head: str
    cell: Callable[[Row], str]
    rank: int = 0  # the highest is dropped first, 0 stays
    right: bool = False  # numbers stand at the right


_STATE_COLOURS = {
    "running": "cyan",
    "placed": "cyan",
    "succeeded": "green",
    "online": "green",
    "failed": "red",
    "lost": "red",
    "cancelled": "yellow",
    "draining": "yellow",
    "no celery": "red",
}


def jobs_table(
    rows: Sequence[Row],
    *,
    tty: bool = False,
    width: int | None = None,
    empty: str = "no jobs",
    owners: bool = False,
) -> str:
    """Return the jobs as a table, with whose they are for `owners`; no rows give `empty`."""
    columns = tuple(c for c in _JOB_COLUMNS if owners or c.head != "OWNER")
    return _table(columns, rows, empty, tty, width)


def workers_table(rows: Sequence[Row], *, tty: bool = False, width: int | None = None) -> str:
    """Return the hosts as a table; no rows give one sentence that says what to start."""
    empty = "no workers online; start one on each GPU host: ftq worker"
    return _table(_WORKER_COLUMNS, rows, empty, tty, width)


def show_block(record: Mapping[str, object], *, tty: bool = False, width: int | None = None) -> str:
    """Return one record as labelled lines; sections are indented, empty fields are left out.

    With a `width` long values go on below, beside their label.
    """
    colours = tty and not os.environ.get("NO_COLOR")
    return "\n".join(_block(record, 0, colours, width))


def _block(record: Mapping[str, object], depth: int, colours: bool, width: int | None) -> list[str]:
    filled = {key: value for key, value in record.items() if value not in (None, "", [], {})}
    pad = max((cells(shown(key)) for key in filled), default=0)
    lines: list[str] = []
    for key, value in filled.items():
        label = "  " * depth + _left(f"{shown(key)}:", pad + 1)
        indent = cells(label) + 1
        styled = click.style(label, dim=True) if colours else label
        if isinstance(value, Mapping):
            lines += [styled.rstrip(), *_block(value, depth + 1, colours, width)]
            continue
        text = _value(str(key), value)
        if width and indent > width // 2:  # no room beside the label
            lines.append(styled)
            indent = 2 * depth + 2
            rows = _wrapped(text, width - indent)
        else:
            first, *rows = _wrapped(text, width - indent if width else None)
            lines.append(f"{styled} {_coloured(first, colours)}")
        lines += [" " * indent + row for row in rows]
    return lines


def _wrapped(text: str, width: int | None) -> list[str]:
    if width is None:
        return [text]
    return [text_of(row) for row in wrap(((text, Style.PLAIN),), max(width, 1))]


def _value(key: str, value: object) -> str:
    if key in ("created", "ended") and (seconds := fmt.number(value)) is not None:
        return fmt.moment(seconds)
    if key.endswith("_s") and fmt.number(value) is not None:
        return fmt.duration(value)
    return ", ".join(map(shown, value)) if isinstance(value, list | tuple) else yaml_word(value)


def _table(
    columns: tuple[Column, ...], rows: Sequence[Row], empty: str, tty: bool, width: int | None
) -> str:
    if not rows:
        return empty
    used = [c for c in columns if not c.rank or any(c.cell(row) for row in rows)]
    grid = {c: [c.cell(row) or "-" for row in rows] for c in used}
    widths = {c: max(cells(text) for text in (c.head, *grid[c])) for c in used}
    if width is not None:
        _squeeze(widths, width)
    colours = tty and not os.environ.get("NO_COLOR")
    head = _GAP.join(_aligned(c.head, c, w) for c, w in widths.items()).rstrip()
    lines = [click.style(head, bold=True) if colours else head]
    for number in range(len(rows)):
        texts = [_aligned(grid[c][number], c, w) for c, w in widths.items()]
        lines.append(_GAP.join(_coloured(text, colours) for text in texts).rstrip())
    return "\n".join(lines)


def _squeeze(widths: dict[Column, int], width: int) -> None:
    """Make the table fit: drop the columns of the highest rank, then cut the widest cells."""

    def total() -> int:
        return sum(widths.values()) + len(_GAP) * (len(widths) - 1)

    while total() > width and any(column.rank for column in widths):
        del widths[max(widths, key=lambda column: column.rank)]
    while total() > width and max(widths.values()) > _SMALLEST:
        widest = max(widths, key=lambda column: widths[column])
        widths[widest] -= 1


def _aligned(text: str, column: Column, width: int) -> str:
    text = text_of(crop(((text, Style.PLAIN),), width))
    return text.rjust(width) if column.right else _left(text, width)


def _left(text: str, width: int) -> str:
    return text + " " * max(width - cells(text), 0)


def _coloured(text: str, colours: bool) -> str:
    colour = _STATE_COLOURS.get(text.strip()) if colours else None
    return click.style(text, fg=colour) if colour else text


def _field(key: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row.get(key)
        return "" if value is None else shown(value)

    return cell


def _created(row: Row) -> str:
    created = fmt.number(row.get("created"))
    return "" if created is None else f"{fmt.duration(max(time.time() - created, 0))} ago"


def _seen(row: Row) -> str:
    return "" if row.get("seen_s") is None else f"{fmt.duration(row['seen_s'])} ago"


def step_of(row: Row) -> str:
    """Return how far training came; a share of it only while it goes on, or when it is all."""
    step, steps = row.get("step"), row.get("steps")
    if step is None:
        return ""
    if steps is None:
        return shown(step)
    percent = percent_of(step, fmt.number(steps))
    goes_on = row.get("phase") == Phase.TRAIN and not _has_ended(row)
    done = f"{shown(step)}/{shown(steps)}"
    return f"{done} {percent}".rstrip() if goes_on or percent == "100%" else done


def _has_ended(row: Row) -> bool:
    return row.get("state") in TERMINAL


def took_of(row: Row) -> str:
    """Return the time from submit to end, empty for a job that has not ended."""
    created, ended = fmt.number(row.get("created")), fmt.number(row.get("ended"))
    if created is None or ended is None or not _has_ended(row):
        return ""
    return fmt.duration(max(ended - created, 0))


def _loss(row: Row) -> str:
    return "" if row.get("loss") is None else fmt.figure(row["loss"])


def eta_of(row: Row) -> str:
    """Return the time that training still takes, empty while it does not run."""
    runs = row.get("state") == JobState.RUNNING and row.get("phase") == Phase.TRAIN
    return fmt.duration(row["eta_s"]) if runs and row.get("eta_s") else ""


def _priority(row: Row) -> str:
    priority = row.get("priority")
    return "" if priority in (None, "normal") else shown(priority)


def _gpus(row: Row) -> str:
    """Return how many GPUs of a host are used, which kind they are, and how many are set aside."""
    gpus = [gpu for gpu in _listed(row, "gpus") if isinstance(gpu, Mapping)]
    if not gpus:
        return ""
    good = [gpu for gpu in gpus if not gpu.get("fault")]
    used = sum(1 for gpu in good if gpu.get("job"))
    kinds = ", ".join(sorted({_kind(gpu) for gpu in gpus}))
    aside = f", {len(gpus) - len(good)} set aside" if len(good) < len(gpus) else ""
    return f"{used}/{len(good)} {kinds}{aside}"


def _kind(gpu: Row) -> str:
    memory = fmt.number(gpu.get("memory_gb"))
    size = f" {memory:.0f} GB" if memory is not None else ""
    return f"{shown(gpu.get('name') or 'GPU').removeprefix('NVIDIA ')}{size}"


def _cpus(row: Row) -> str:
    slots = row.get("cpu_slots")
    return "" if slots is None else f"{shown(row.get('cpu_used') or 0)}/{shown(slots)}"


def _running(row: Row) -> str:
    jobs = _listed(row, "running")
    return ", ".join(shown(j.get("job", j) if isinstance(j, Mapping) else j) for j in jobs)


def _listed(row: Row, key: str) -> list[object]:
    value = row.get(key)
    return list(value) if isinstance(value, list | tuple) else []


_JOB_COLUMNS = (
    Column("JOB", _field("id")),
    Column("NAME", _field("name"), rank=5),
    Column("STATE", _field("state")),
    Column("PHASE", _field("phase"), rank=1),
    Column("STEP", step_of, rank=2, right=True),
    Column("LOSS", _loss, rank=4, right=True),
    Column("ETA", eta_of, rank=2, right=True),
    Column("TOOK", took_of, rank=3, right=True),
    Column("OWNER", _field("owner"), rank=4),
    Column("MODEL", _field("model"), rank=7),
    Column("DATASET", _field("dataset"), rank=8),
    Column("HOST", _field("host"), rank=6),
    Column("PRIORITY", _priority, rank=9),
    Column("CREATED", _created, rank=5),
    Column("URL", _field("url"), rank=10),
)
_WORKER_COLUMNS = (
    Column("WORKER", _field("name")),
    Column("STATE", _field("state")),
    Column("GPUS", _gpus, rank=1),
    Column("CPU", _cpus, rank=2),
    Column("RUNNING", _running, rank=3),
    Column("SEEN", _seen, rank=4),
    Column("STORAGE", _field("storage_id"), rank=6),
    Column("VERSION", _field("version"), rank=5),
    Column("INSTANCE", _field("instance"), rank=7),
)
