"""Names that come near one that does not exist."""

import difflib
import re
from collections.abc import Callable, Iterable

Search = Callable[[str, str | None], list[str]]  # query, author -> ids

_ENOUGH = 5
_MOST_SEARCHES = 6
_CUTOFF = 0.5
_SHORTEST = 3  # characters that a part must have to say anything


def queries(name: str) -> list[tuple[str, str | None]]:
    """Return what to search for, best first: (words, author).

    A Hub finds ids that contain the words, so a slip in one part must not hide the others.
    """
    org, _, base = name.rpartition("/")
    parts = sorted((part for part in re.split(r"[-_.\s]+", base) if len(part) > 1), key=len)
    asked: list[tuple[str, str | None]] = [(base, None)]
    if org:
        asked.append(("", org))
    if len(parts) > 1:
        asked += [(part, None) for part in reversed(parts)]
    if len(base) >= 4:
        half = max(3, len(base) // 2)
        asked += [(base[:half], None), (base[-half:], None)]
    return list(dict.fromkeys(asked))[:_MOST_SEARCHES]


def find(name: str, search: Search) -> list[str]:
    """Return up to five ids that come near `name`, the nearest first."""
    ids: set[str] = set()
    for words, author in queries(name):
        ids.update(search(words, author))
        if len(rank(name, ids)) >= _ENOUGH:
            break
    return rank(name, ids)


def rank(name: str, ids: Iterable[str]) -> list[str]:
    """Return up to five of `ids`, the nearest first; what is far away is left out."""
    scored = sorted((-_likeness(name, other), other) for other in ids)
    return [other for score, other in scored if -score >= _CUTOFF][:_ENOUGH]


def _likeness(name: str, other: str) -> float:
    """Return 0 to 1. The organisation counts little: it is what people leave out."""
    name, other = name.lower(), other.lower()
    whole = difflib.SequenceMatcher(None, name, other).ratio()
    base, other_base = name.rpartition("/")[2], other.rpartition("/")[2]
    likeness = 0.3 * whole + 0.7 * difflib.SequenceMatcher(None, base, other_base).ratio()
    return max(likeness, _contained(base, other_base))


def _contained(base: str, other: str) -> float:
    """Return how near a name is that is a part of the other, 0 for none.

    People type how a name begins, or the part of it that they remember.
    """
    short, long = sorted((_words(base), _words(other)), key=len)
    if len(short) < _SHORTEST or short not in long:
        return 0.0
    begins = 0.2 if long.startswith(short) else 0.0
    return _CUTOFF + begins + 0.2 * len(short) / len(long)


def _words(name: str) -> str:
    """Return a name without what people write in different ways: dashes, dots, underscores."""
    return re.sub(r"[-_.\s]+", "", name)
