"""Logging of the host's processes: a sentence for people on stderr, secrets taken out."""

import logging
import sys

from ftq_shared.redaction import Redactor


class _Redacting(logging.Formatter):
    """Formats a record and hides whatever looks like a secret."""

    _redactor = Redactor()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return self._redactor.text(super().format(record))


def setup_logging(process: str) -> None:
    """Send all logging of this process to stderr, with its name."""
    handler = logging.StreamHandler(sys.stderr)
    pattern = f"%(asctime)s {process:<7} %(levelname)-7s %(message)s"
    handler.setFormatter(_Redacting(pattern, datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("kombu", "celery", "amqp", "httpx2", "urllib3", "filelock", "fsspec"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
