"""Secrets taken out of text before it leaves the host, and control characters made visible."""

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

HIDDEN = "[hidden]"

# What is hidden even when nobody told us about it: tokens of the Hub, passwords in URLs, headers.
_PATTERNS = (
    (re.compile(r"hf_[A-Za-z0-9]{20,}"), HIDDEN),
    (re.compile(r"(?<=://)([^\s:/@]*):[^\s/@]+(?=@)"), rf"\1:{HIDDEN}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {HIDDEN}"),
)
# Shorter values would hide ordinary words.
_MIN_SECRET = 6
# Zero-width (non-)joiners belong to the spelling of many scripts, and to emoji.
_JOINERS = "\u200c\u200d"
# What shows nothing though Unicode calls it a letter or a mark; the last range can carry a text.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0") | {
    chr(code) for code in range(0xE0100, 0xE01F0)
}


class Redactor:
    """Hides known secrets, and whatever looks like one, in text and in plain data."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {part for secret in secrets for part in _forms(secret)}
        # The longest first, so that a secret that contains another is hidden whole.
        ordered = sorted(known, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def text(self, text: str) -> str:
        """Return `text` with every secret replaced by `[hidden]`."""
        if self._known:
            text = self._known.sub(HIDDEN, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def data(self, value: Any) -> Any:
        """Return plain data with every text in it redacted, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.data(key): self.data(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.data(item) for item in value]
        return value


def _forms(secret: str) -> list[str]:
    """Return a secret as it may show up: as it is, line by line, and as a URL or JSON writes it."""
    from urllib.parse import quote

    lines = [secret.strip(), *(line.strip() for line in secret.splitlines())]
    forms = [
        form for line in lines for form in (line, quote(line, safe=""), json.dumps(line)[1:-1])
    ]
    return [form for form in forms if len(form) >= _MIN_SECRET]


def escape_control(text: str, *, keep_newlines: bool = True) -> str:
    r"""Return `text` with what could steer a terminal shown as `\x1b` or `\u202e`.

    Newline and tab stay unless `keep_newlines` is false. Letters of all scripts stay as they are.
    """
    kept = "\n\t" if keep_newlines else ""
    if text.isprintable() and text.isascii():
        return text
    return "".join(c if c in kept or not _steers(c) else _escaped(c) for c in text)


def one_line(said: object, most: int = 300) -> str:
    """Return what a library says as one line fit to print: it may quote the bytes of a file."""
    return escape_control(" ".join(str(said).split()))[:most]


def escape_json(text: str) -> str:
    """Return JSON text that means the same, with what could steer a terminal as JSON's escapes.

    Such characters stand in strings only: between them JSON has no others than spaces.
    """
    if text.isprintable() and text.isascii():
        return text
    return "".join(json.dumps(c)[1:-1] if _steers(c) else c for c in text)


def _steers(char: str) -> bool:
    # Cc: control, Cf: reorders or hides its neighbours, Cs: lone surrogate (cannot be encoded),
    # Zl/Zp: line breaks that are no newline
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return char not in _JOINERS
    return char in _BLANK


def _escaped(char: str) -> str:
    code = ord(char)
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
