"""Which columns of the client's own rows are not used, said before they leave.

What rows mean is the worker's knowledge, which the client does not import: it runs
`python -m ftq_worker.preview.columns` beside itself. That part of the worker comes with the client
and needs no training stack.
"""

import json
import subprocess
from collections.abc import Iterator

import click

from ftq_client.submit.own_rows import OwnData
from ftq_client.view.format import percent
from ftq_shared.errors import Unexpected
from ftq_shared.preview_messages import ColumnsAnswer, ColumnsRequest
from ftq_shared.processes import own_module
from ftq_shared.spec import JobSpec

_PATIENCE_S = 20.0


def judge(data: OwnData, spec: JobSpec) -> ColumnsAnswer:
    """Return what is not used of the first rows. Raises Unexpected where that cannot be told."""
    request = ColumnsRequest(spec=spec.model_dump(mode="json"), rows=data.first)
    command = own_module("ftq_worker.preview.columns")
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request),
            capture_output=True,
            encoding="utf-8",
            timeout=_PATIENCE_S,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise Unexpected(f"the columns were not judged in {_PATIENCE_S:g} s") from error
    except subprocess.CalledProcessError as error:
        said = str(error.stderr).strip().splitlines() or ["it said nothing"]
        raise Unexpected(f"the columns could not be judged: {said[-1]}") from error
    answer: ColumnsAnswer = json.loads(done.stdout)
    return answer


def judged(data: OwnData | None, spec: JobSpec) -> ColumnsAnswer | None:
    """Return the same; None, with a word where it fails, for what a glance cannot tell."""
    if not data or not data.first:
        return None
    try:
        return judge(data, spec)
    except Unexpected as error:  # validate tells it in a moment
        click.echo(f"warning: {error.message}; validate tells which are used", err=True)
        return None


def lines(answer: ColumnsAnswer | None) -> Iterator[str]:
    """Yield what a person should know of the columns."""
    if answer is None:
        return
    if refusal := answer["refusal"]:
        yield f"warning: validate will refuse these rows: {refusal['message']}"
        yield f"  {refusal['hint']}"
        return
    for one in answer["unused"]:
        use = f"; to use it: {one['use']}" if one["use"] else ""
        yield f"not used: {one['name']} (in {percent(one['share'], 0)} of the first rows){use}"
    if not answer["unused"]:
        yield "every column is used"
