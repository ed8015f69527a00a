"""Answer one request of `ftq preview`; what goes in and out is said in `preview_messages`.

python -m ftq_worker.preview < REQUEST.json
"""

import os
import sys
from pathlib import Path

from ftq_shared.errors import Exit, FtqError, UsageError
from ftq_shared.preview_messages import Answer, PreviewRequest
from ftq_worker.host.cold_imports import collector_off
from ftq_worker.host.environment import PINNED


def main() -> int:
    """Read the request, print the answer; returns the exit code, which says nothing of the data."""
    request = PreviewRequest.from_json(sys.stdin.read())
    os.environ.update(PINNED)  # before the libraries are imported, as on a worker
    try:
        _answer(request)
    except FtqError as error:
        _print({"error": error.info().to_json()})
    return Exit.OK


def _answer(request: PreviewRequest) -> None:
    with collector_off():
        from ftq_worker.job.quiet import quiet_libraries
        from ftq_worker.preview.run import preview
        from ftq_worker.report.page import to_html

    quiet_libraries()
    report = preview(request, lambda text: _print({"note": text}))
    if request.html:
        try:
            Path(request.html).write_bytes(to_html(report))
        except OSError as error:
            raise UsageError(
                f"--html: {request.html}: {error.strerror}", hint="name a file that can be written"
            ) from error
    _print({"report": report})


def _print(answer: Answer) -> None:
    import json

    print(json.dumps(answer), flush=True)  # noqa: T201  the answers are the output


if __name__ == "__main__":
    sys.exit(main())
