"""A look at what a job would train on: the worker's own code, run beside the client.

The client imports nothing of it: it runs `python -m ftq_worker.preview` and reads what that says.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import click

from ftq_client.submit.build_spec import uses_hub
from ftq_client.submit.tokens import find_token
from ftq_client.transfer.files import OwnFile, own_files_of
from ftq_client.view.data_report import report_lines
from ftq_client.view.lines import glyphs_for, text_of
from ftq_shared.data_report import DataReport
from ftq_shared.errors import (
    ErrorInfo,
    ErrorJson,
    Exit,
    FtqError,
    HubUnreachable,
    Refused,
    Unexpected,
    UsageError,
)
from ftq_shared.preview_messages import Answer, PreviewRequest
from ftq_shared.processes import own_module
from ftq_shared.sources import Place, parse_source
from ftq_shared.spec import JobSpec
from ftq_shared.spec_input import parse_spec

_WIDTH = 80  # columns where the output is no terminal
_WIDEST = 120  # longer lines are hard to read
_KINDS: dict[int, type[FtqError]] = {
    Exit.USAGE: UsageError,
    Exit.REFUSED: Refused,
    Exit.HUB: HubUnreachable,
}


@dataclass(frozen=True)
class Look:
    """What is to be looked at, and how much of it is shown."""

    raw: Mapping[str, Any]  # a spec as a person wrote it
    endpoint: str  # the Hub's URL
    rows: int
    html: Path | None = None  # file that gets the page
    token: str | None = None  # for the Hub; None: the one that is found here


def look(wanted: Look, on_note: Callable[[str], None]) -> DataReport:
    """Return what such a job would train on; `on_note` gets a sentence for what takes time.

    Raises UsageError for a bad spec and where the worker's code is not installed, Refused as
    validate and prepare do, HubUnreachable.
    """
    spec = parse_spec(wanted.raw)
    _require_worker()
    with tempfile.TemporaryDirectory(prefix="ftq-preview-", ignore_cleanup_errors=True) as folder:
        return _ask(_request(spec, wanted, folder), on_note)


def raised(error: ErrorJson) -> FtqError:
    """Return an error that came as plain data as the one that it was."""
    info = ErrorInfo.from_json(error)
    kind = _KINDS.get(info.exit_code, FtqError)
    hint = info.hint.partition("; `ftq retry")[0]  # nothing has been submitted
    return kind(info.message, code=info.code, hint=hint, **info.where)


def can_preview() -> bool:
    """Return whether the worker's code is installed here, which knows what is trained."""
    parts = ("ftq_worker", "torch", "transformers", "datasets")
    return all(find_spec(name) is not None for name in parts)


def show_rows(endpoint: str, raw: Mapping[str, Any], token: str | None) -> None:
    """Show in the middle of questions what a job would train on. Raises as `look` does."""
    note = partial(click.echo, err=True)
    show(look(Look(raw, endpoint, rows=3, token=token), note), err=True)


def show(report: DataReport, *, err: bool = False) -> None:
    """Print the report: with colours on a terminal that has them, else with brackets."""
    stream = sys.stderr if err else sys.stdout
    tty = stream.isatty()
    colours = tty and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    width = min(shutil.get_terminal_size().columns, _WIDEST) if tty else _WIDTH
    glyphs = glyphs_for(stream.encoding)
    for line in report_lines(report, width=max(width, 40), glyphs=glyphs, marks=not colours):
        text = "".join(_styled(*part) for part in line) if colours else text_of(line)
        click.echo(text, err=err)


def _styled(text: str, style: str) -> str:
    """Return a text in one of the view's styles: words such as `bold red`."""
    words = style.split()
    colour = next((word for word in words if word not in ("bold", "dim")), None)
    return click.style(text, fg=colour, bold="bold" in words or None, dim="dim" in words or None)


def _require_worker() -> None:
    if not can_preview():
        raise UsageError(
            "a preview runs the tokenizer and reads the rows here, and the code for that is not"
            " installed",
            code="not_installed",
            hint="pip install 'ftq[worker]' (for your CUDA version, install torch first)",
        )


def _request(spec: JobSpec, wanted: Look, folder: str) -> PreviewRequest:
    if wanted.html and not wanted.html.absolute().parent.is_dir():
        raise UsageError(
            f"--html: there is no folder {wanted.html.absolute().parent}",
            code="no_such_folder",
            hint="make it first, or name another file",
        )
    model = parse_source(spec.model, what="model")
    dataset = parse_source(spec.dataset, what="dataset")
    own_folder = dataset.place is Place.CLIENT and Path(dataset.name).is_dir()
    files = [] if own_folder else own_files_of("dataset", spec.dataset)
    return PreviewRequest(
        spec=spec.model_dump(mode="json"),
        endpoint=wanted.endpoint,
        rows=wanted.rows,
        folder=folder,
        model_folder=model.name if model.place is Place.CLIENT else "",
        dataset_folder=dataset.name if own_folder else "",
        files=[(str(_on_disk(file, Path(folder))), file.path) for file in files],
        html=str(wanted.html.absolute()) if wanted.html else "",
        token=(wanted.token or find_token() or "") if uses_hub(spec) else "",
    )


def _on_disk(file: OwnFile, folder: Path) -> Path:
    """Return where a file lies; what lies nowhere is written to the folder."""
    if file.content is None:
        return file.source
    made = folder / "made" / file.path
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_bytes(file.content)
    return made


def _ask(request: PreviewRequest, on_note: Callable[[str], None]) -> DataReport:
    """Run the worker's code and return its answer; it ends with this call, whatever happens."""
    with ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile())
        process = stack.enter_context(
            subprocess.Popen(
                own_module("ftq_worker.preview"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
            )
        )
        stack.callback(process.kill)  # it has answered, or nobody waits for it any more
        assert process.stdin
        assert process.stdout
        with suppress(BrokenPipeError):  # it has died already; what it said last is told below
            process.stdin.write(request.to_json())
            process.stdin.close()
        for line in process.stdout:
            answer: Answer = json.loads(line)
            if "report" in answer:
                return answer["report"]
            if "error" in answer:
                raise raised(answer["error"])
            on_note(answer["note"])
        raise _died(process.wait(), errors)


def _died(code: int, errors: IO[bytes]) -> FtqError:
    """Return the error for worker code that ended without an answer."""
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
    killed = code < 0
    return Unexpected(
        f"the preview ended {f'by signal {-code}' if killed else f'with code {code}'}:"
        f" {said[-1]}",
        hint="is there too little memory?" if killed else "this is a bug in ftq or in a library"
        " it uses",
    )  # fmt: skip
