"""Secrets taken out of text before it leaves the host, and control characters made visible."""

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
# Format characters that reorder or hide what stands beside them (bidi overrides, zero width).
_HIDING = frozenset("\u200b\u200e\u200f\u2028\u2029\u2060\ufeff\u061c") | {
    chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
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
    import json
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


def _steers(char: str) -> bool:
    # Cc: control, Cs: lone surrogate (cannot be encoded), Zl/Zp: line breaks that are no newline
    return unicodedata.category(char) in ("Cc", "Cs") or char in _HIDING


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
