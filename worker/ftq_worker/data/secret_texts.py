"""Keys and tokens in the texts of rows: they are counted and named by place, never shown.

A model may repeat what it was trained on, so a secret in a training row is a published secret.
"""

import re
from collections.abc import Sequence

from ftq_shared.redaction import HIDDEN
from ftq_worker.data.tables import SplitTable
from ftq_worker.job.context import PhaseContext

# As their issuers write them; the first marks are looked for before a pattern is tried.
_KINDS = {
    "Hugging Face token": ("hf_", r"\bhf_[A-Za-z0-9]{30,}"),
    "OpenAI-style API key": ("sk-", r"\bsk-(?:[a-z]+\d*-)*[A-Za-z0-9_-]{20,}"),
    "AWS access key": ("KIA", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "GitHub token": ("gh", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})"),
    "GitLab token": ("glpat-", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    "Slack token": ("xox", r"\bxox[abeoprs]-[A-Za-z0-9-]{20,}"),
    "Google API key": ("AIza", r"\bAIza[A-Za-z0-9_-]{35}"),
    "private key": (
        "PRIVATE KEY",
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
        r"(?:.*?-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|.*)",
    ),
}
_PATTERNS = {
    kind: (mark, re.compile(pattern, re.DOTALL)) for kind, (mark, pattern) in _KINDS.items()
}
SHOWN_ROWS = 5  # places in the warning


def kinds_of(text: str) -> list[str]:
    """Return which kinds of secrets a text holds."""
    return [
        kind for kind, (mark, pattern) in _PATTERNS.items() if mark in text and pattern.search(text)
    ]


def hide(text: str) -> str:
    """Return the text with `[hidden]` in place of each secret."""
    for mark, pattern in _PATTERNS.values():
        if mark in text:
            text = pattern.sub(HIDDEN, text)
    return text


class SecretWatch:
    """Counts the rows that hold secrets."""

    def __init__(self) -> None:
        self._rows = 0
        self._kinds: dict[str, int] = {}
        self._places: list[str] = []

    def add(self, table: SplitTable, row: int, kinds: Sequence[str]) -> None:
        """Count one usable row that holds secrets of these kinds."""
        self._rows += 1
        for kind in kinds:
            self._kinds[kind] = self._kinds.get(kind, 0) + 1
        if len(self._places) < SHOWN_ROWS:
            source = table.source_row(row)
            at = f"row {source.number}" if source.line is None else f"line {source.line}"
            self._places.append(f"{source.file} {at}")

    def warn(self, ctx: PhaseContext) -> None:
        """Warn once, with count, kinds and places."""
        if not self._rows:
            return
        kinds = ", ".join(f"{kind} in {rows:,}" for kind, rows in self._kinds.items())
        more = ", ..." if self._rows > len(self._places) else ""
        ctx.warn(
            f"{self._rows:,} rows hold what looks like a secret ({kinds}):"
            f" {', '.join(self._places)}{more}",
            hint="take them out, and revoke the secrets if they are real: a model may repeat what"
            " it was trained on",
        )
