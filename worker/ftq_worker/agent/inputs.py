"""What a phase gets through the broker: the job's secrets, and files of the client's own.

Files that lie in a private Hub repo are left to the child (`ftq_worker.child.hub_inputs`): the
agent has no Hub client. Their list is a file, because it may be too long for the line to the
zygote.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ftq_shared import keys
from ftq_shared.errors import Refused, input_lost
from ftq_shared.job_record import InputFile, JobRecord
from ftq_shared.paths import JobPaths, write_json
from ftq_shared.row_refs import RowRef, dump_refs
from ftq_shared.secrets import open_box
from ftq_shared.states import Phase
from ftq_worker.agent.services import Services

if TYPE_CHECKING:
    from redis import Redis


def open_secrets(services: Services, record: JobRecord) -> dict[str, str]:
    """Open the job's sealed box; {} when it has none.

    Raises Refused, with `secrets_lost` where the record says of a box that is no longer there.
    """
    box = services.store.sealed_secrets(record.id)
    if not box and record.summary.get("has_secrets") == "1":
        raise Refused(
            "the job's secrets are no longer with the broker",
            code="secrets_lost",
            hint=f"they are kept for 30 days, if the broker evicts nothing; `ftq retry {record.id}`"
            " sends them again",
        )
    if not box:
        return {}
    return open_box(
        services.fleet,
        box,
        job=record.id,
        spec_sha256=record.spec.sha256(),
        endpoint=services.endpoint,
    )


def fetch_inputs(binary: "Redis", record: JobRecord, paths: JobPaths) -> None:
    """Put every input file in place; free the broker's copy once prepare is over.

    Files that lie in the shared storage already are checked by size. Raises FtqError (code
    `input_lost`) when a file is neither here nor with the broker, or arrived damaged.
    """
    for file in record.inputs:
        target = paths.inputs / file.path
        if not target.resolve().is_relative_to(paths.inputs.resolve()):
            raise input_lost(file.path, "its path leads out of the job's folder")
        if file.hub:
            continue
        if target.exists() and target.stat().st_size == file.size:
            continue
        if not file.chunks and file.size:
            raise input_lost(file.path, "it is not in this host's storage")
        _assemble(binary, record.id, file, paths)
    if on_hub := [vars(file) for file in record.inputs if file.hub]:
        write_json(paths.hub_inputs, on_hub)
    if record.inputs and record.phase not in (Phase.VALIDATE, Phase.PREPARE):
        binary.delete(keys.inputs(record.id))
        binary.zrem(keys.INPUT_SIZES, record.id)


def write_without_rows(paths: JobPaths, rows: Iterable[RowRef], *, asked: bool) -> None:
    """Hand on the rows that are left out of training; `asked`: the last retry has named them."""
    write_json(paths.without_rows, {"asked": asked, "rows": json.loads(dump_refs(rows))})


def _assemble(binary: "Redis", job: str, file: InputFile, paths: JobPaths) -> None:
    """Write one file from its chunks; it appears whole or not at all."""
    target = paths.inputs / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    whole = hashlib.sha256()
    with part.open("wb") as out:
        for name in file.chunks:
            chunk = binary.hget(keys.inputs(job), name)
            if not isinstance(chunk, bytes):
                raise input_lost(file.path, "a part of it is no longer with the broker")
            whole.update(chunk)
            out.write(chunk)
    if whole.hexdigest() != file.sha256:
        raise input_lost(file.path, "it arrived damaged")
    part.replace(target)
