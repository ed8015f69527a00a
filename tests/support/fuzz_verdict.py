"""One dataset through validate and prepare, and everything that must hold of how it ended."""

import itertools
import re
from collections import Counter
from pathlib import Path
from typing import Any

from ftq_shared.errors import FtqError
from ftq_shared.events import EventType, make_body
from ftq_shared.redaction import escape_control
from ftq_shared.states import Phase
from ftq_worker.host.data_roots import DataRoots
from ftq_worker.job.prepared_sets import load_sets
from ftq_worker.job.reports import Prepared, Validated
from ftq_worker.phases import prepare, validate
from tests.support.data_jobs import make_context, make_spec
from tests.support.fuzz_cases import Case, rows_in

_NO_REFUSAL = ("unexpected", "host_fault", "interrupted", "missing_handover", "damaged_handover")
_OF_A_FILE = ("bad_file", "bad_row", "bad_encoding", "unreadable_file")
# What a library says to its programmers, not to a person.
_INTERNAL = re.compile(
    r"Traceback|<class |object at 0x|\b(?!TProtocol)[A-Z][A-Za-z]+(Error|Exception)\b"
)
_ROW_RULES = ("unreadable", "missing", "blank", "empty", "wrong_type", "conversation", "bad_answer")


class Job:
    """The phases of one dataset, and what they said."""

    def __init__(self, case: Case, base: Path) -> None:
        self.case = case
        self.events: list[tuple[EventType, dict[str, Any]]] = []
        spec = make_spec(
            model=f"worker:{base}",
            dataset=case.dataset,
            task=case.task,
            data=case.data,
            resources={"gpus": 0},  # the memory of a card is not the question
        )
        roots = DataRoots(open=(str(base), str(case.folder)))
        self.ctx = make_context(case.folder / "storage", spec, data_roots=roots)
        object.__setattr__(self.ctx, "emit", self._emit)

    def _emit(self, type_: EventType, /, **data: Any) -> None:
        make_body(type_, data, attempt=1, host="here", phase=Phase.PREPARE).encode()
        self.events.append((type_, data))

    def run(self) -> None:
        validate.run(self.ctx)
        prepare.run(self.ctx)

    def of(self, type_: EventType) -> list[dict[str, Any]]:
        return [data for found, data in self.events if found is type_]

    @property
    def rows_read(self) -> int:
        """How many rows of all splits prepare has read."""
        splits = [data["splits"] for data in self.of(EventType.DATASET)[1:]]
        return sum(splits[-1].values()) if splits else 0

    @property
    def warnings(self) -> str:
        return "\n".join(data["message"] for data in self.of(EventType.WARNING))


def faults_of_refusal(job: Job, error: FtqError) -> list[str]:
    """Return what is wrong with a refusal."""
    faults = []
    body = error.info().to_json()
    make_body(EventType.ERROR, dict(body), attempt=1, host="h", phase=Phase.PREPARE).encode()
    said = f"{error.message} | {error.hint}"
    if error.code in _NO_REFUSAL:
        faults.append(f"is no refusal: {said}")
    if not error.message.strip() or not error.hint.strip():
        faults.append(f"message or hint is empty: {said}")
    if error.code in _OF_A_FILE and not {"file", "field"} & error.where.keys():
        faults.append(f"names no file: {said}")
    if _INTERNAL.search(said):
        faults.append(f"speaks to programmers: {said:.400}")
    library = error.code == "bad_file"  # names of columns are escaped where they are shown
    if len(said) > 4000 or (library and not escape_control(said).isprintable()):
        faults.append(f"is not fit to print, {len(said)} characters: {said[:400]!a}")
    return faults


def faults_of_end(job: Job) -> list[str]:
    """Return what does not add up in what prepare has left."""
    report = Prepared.load(job.ctx.paths.prepared_report)
    validated = Validated.load(job.ctx.paths.validated)
    return [
        *_unbalanced(job, report),
        *_uncounted(job, validated),
        *_unnamed_columns(job, report, validated),
        *_unnamed_files(job, validated),
    ]


def _unbalanced(job: Job, report: Prepared) -> list[str]:
    faults = []
    counts = report.cleaning
    for one, next_ in itertools.pairwise(counts):
        if one["rows_out"] != next_["rows_in"] or one["rows_out"] > one["rows_in"]:
            faults.append(f"{one} is followed by {next_}")
    told = {data["rule"]: data for data in job.of(EventType.CLEANING)}
    if [dict(told[one["rule"]]) for one in counts] != [dict(one) for one in counts]:
        faults.append("events and report differ")
    splits = job.of(EventType.DATASET)[-1]["splits"]
    train = next(iter(splits))
    if counts[0]["rows_in"] != splits[train]:
        faults.append(f"{splits[train]} rows of {train} read, the rules begin with {counts[0]}")
    if counts[-1]["rows_out"] != report.rows["train"]:
        faults.append(f"{report.rows} rows are kept, the rules end with {counts[-1]}")
    if report.rows["train"]:
        load_sets(job.ctx.paths, report)  # raises where a set does not hold the reported rows
    faults += [
        f"names no rows: {data}"
        for data in job.of(EventType.CLEANING)
        if data["rule"] in _ROW_RULES
        and len(data["examples"]) != min(3, data["rows_in"] - data["rows_out"])
    ]
    return faults


def _uncounted(job: Job, validated: Validated) -> list[str]:
    """Compare the rows that were read with those that the files hold, where that is known."""
    counts = [rows_in(Path(file)) for file in validated.dataset.files]
    whole = "max_rows" not in job.case.data and "splits that are not used" not in job.warnings
    whole = whole and "validation" not in job.case.data and "can be used" not in job.warnings
    held = sum(count or 0 for count in counts)
    if None in counts or not whole or held == job.rows_read:
        return []
    return [f"{job.rows_read} rows were read, the files hold {held}: {validated.dataset.files}"]


def _unnamed_columns(job: Job, report: Prepared, validated: Validated) -> list[str]:
    """Return the planted columns that are neither used nor named, where no row was broken."""
    if "max_rows" in job.case.data or any(
        one["rows_in"] > one["rows_out"] for one in report.cleaning if one["rule"] in _ROW_RULES
    ):
        return []
    used = {*validated.columns.model_dump().values(), job.case.data.get("group_by")}
    named = {one["name"] for one in report.unused}
    planted = [name for name in validated.dataset.columns if name.startswith("planted")]
    if len(validated.dataset.splits) > 1:  # it may stand in the second half alone
        planted = [name for name in planted if name != "planted_late"]
    return [
        f"the column {name} is neither used nor named"
        for name in planted
        if name not in used | named
    ]


def _unnamed_files(job: Job, validated: Validated) -> list[str]:
    named = {file.name for file in validated.dataset.unread}
    read = Counter(Path(file).name for file in validated.dataset.files)
    return [
        f"{name} is neither read nor named"
        for name in job.case.company
        if not (read[name] or any(re.fullmatch(rf"{re.escape(name)}(/.*)?", one) for one in named))
    ]
