"""What a `model:` or `dataset:` value names: the Hub, the client's disk or the workers' disk."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ftq_shared.errors import UsageError

TEXT_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".text")
TABLE_SUFFIXES = (".parquet", ".arrow", ".feather")
DATA_SUFFIXES = TEXT_SUFFIXES + TABLE_SUFFIXES
COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")  # of text
READ_KINDS = f"{', '.join(DATA_SUFFIXES)} (text also as {', '.join(COMPRESSIONS)})"
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")


class Place(StrEnum):
    """Where a source lives."""

    HUB = "hub"  # a repo on the Hub
    CLIENT = "client"  # a path on the machine of the person; it travels to the workers
    WORKER = "worker"  # a path that the workers have already


@dataclass(frozen=True)
class Source:
    """A parsed `model:` or `dataset:` value."""

    place: Place
    name: str  # repo id, or path as written (without `worker:`)
    config: str | None = None  # dataset config, Hub only
    revision: str | None = None  # branch, tag or commit, Hub only


def data_suffix(name: str) -> str:
    """Return which of DATA_SUFFIXES a file's name ends with, "" when ftq does not read such files.

    `ROWS.CSV` and `rows.csv.gz` are .csv; a table is not read from a compressed file.
    """
    name = name.lower()
    plain = name.removesuffix(compression(name))
    kinds = DATA_SUFFIXES if plain == name else TEXT_SUFFIXES
    return next((suffix for suffix in kinds if plain.endswith(suffix)), "")


def compression(name: str) -> str:
    """Return which of COMPRESSIONS a file's name ends with, "" for none."""
    return next((suffix for suffix in COMPRESSIONS if name.lower().endswith(suffix)), "")


def is_data_name(name: str) -> bool:
    """Return whether ftq reads rows from files of such a name."""
    return bool(data_suffix(name))


def looks_like_path(text: str) -> bool:
    """Return whether `text` means a path rather than a Hub id, without touching the disk."""
    return (
        text.startswith(("./", "../", "/", "~"))
        or is_data_name(text)
        or any(c in text for c in "*?[")
    )


def parse_source(text: str, *, what: str) -> Source:
    """Take a value apart; `what` is `model` or `dataset`, for the message.

    Raises UsageError when it is neither a path nor a well-formed Hub id.
    """
    if text.startswith("worker:"):
        return Source(Place.WORKER, text.removeprefix("worker:"))
    if looks_like_path(text):
        try:
            return Source(Place.CLIENT, str(Path(text).expanduser()))
        except RuntimeError as error:  # ~nobody
            raise UsageError(f"{what}: {text!r}: {error}", code="bad_source", field=what) from error
    name, _, revision = text.partition("@")
    config = ""
    if what == "dataset":
        name, _, config = name.partition(":")
    if not _HUB_ID.match(name):
        raise UsageError(
            f"{what}: {text!r} is neither a Hub id nor a path",
            code="bad_source",
            hint="a Hub id looks like org/name, a path like ./rows.jsonl or worker:/data/x.jsonl",
            field=what,
        )
    return Source(Place.HUB, name, config or None, revision or None)
