"""Logging of a host's processes, on stderr, secrets taken out.

Each line is a sentence for people. Programs get the same line with FTQ_LOG=json: one JSON object
that also has what the call gave in `extra`, an `action` (what happened, snake_case, stable) and the
ids it concerns: job, host, instance, pid ...
"""

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType

from ftq_shared.redaction import Redactor

log = logging.getLogger(__name__)

# What every record has by itself; the rest of its attributes came with `extra`.
_STANDARD = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}


class _Text(logging.Formatter):
    """One line for people."""

    _redactor = Redactor()

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.text(super().format(record))


class _Json(logging.Formatter):
    """One JSON object for programs."""

    _redactor = Redactor()

    def __init__(self, about: dict[str, str]) -> None:
        super().__init__()
        self._about = about

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **self._about,
            "message": record.getMessage(),
            "action": "library",  # unless the call says better
        } | {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(self._redactor.data(fields), ensure_ascii=False, default=str)


def setup_logging(process: str, form: str, **ids: str) -> None:
    """Send all logging of this process to stderr, what a library warns of and a crash included.

    `form` is the setting FTQ_LOG: text or json. Each JSON object has the `ids`, such as the host.
    """
    handler = logging.StreamHandler(sys.stderr)
    pattern = f"%(asctime)s {process:<10} %(levelname)-7s %(message)s"
    text = _Text(pattern, datefmt="%H:%M:%S")
    handler.setFormatter(_Json({"process": process, **ids}) if form == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _log_crash
    threading.excepthook = _log_thread_crash
    for noisy in ("kombu", "celery", "amqp", "httpx2", "urllib3", "filelock", "fsspec"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def leave_logging() -> None:
    """Undo `setup_logging` in a fork: what a phase prints is its own."""
    logging.getLogger().handlers.clear()
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook = sys.__excepthook__, threading.__excepthook__


def _log_thread_crash(args: threading.ExceptHookArgs) -> None:
    if args.exc_value and not isinstance(args.exc_value, SystemExit):
        _log_crash(args.exc_type, args.exc_value, args.exc_traceback)


def _log_crash(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Log what ends a process or a thread, in the log's form and without secrets."""
    log.critical("crashed: %r", error, exc_info=(kind, error, trace), extra={"action": "crashed"})
