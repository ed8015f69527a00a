"""What a job record says of the client's own files, also one that an older client wrote."""

import json

from ftq_shared.job_record import InputFile, JobRecord


def inputs(entries: list[dict[str, object]]) -> tuple[InputFile, ...]:
    """Return the inputs of a record with these entries."""
    raw = {"id": "ft-aaaaaaaa", "v": "1", "state": "queued", "phase": "validate", "attempt": "1"}
    record = JobRecord.from_hash(raw | {"version": "1", "inputs": json.dumps(entries)})
    return record.inputs


def test_a_record_without_places_on_the_hub_still_reads() -> None:
    old = {"path": "dataset/a.jsonl", "size": 3, "sha256": "ab", "chunks": ["cd"]}
    assert inputs([old]) == (InputFile("dataset/a.jsonl", 3, "ab", ("cd",), ""),)


def test_what_is_written_is_read_back() -> None:
    file = InputFile("dataset/a.jsonl", 3, "ab", (), "me/ftq-inputs-ft-aaaaaaaa@c0ffee")
    assert inputs([vars(file)]) == (file,)
