"""Who watches whose leases: of a large fleet three hosts each host, and it itself.

The hosts stand in a ring, in the order of a hash of their names, and each is watched by those that
come after it (Karger et al. 1997, "Consistent hashing and random trees"): every host works out the
same without a word, all watch equally many, and when one is lost only its watchers change.
"""

import bisect
import hashlib
from collections.abc import Collection
from functools import cache

OBSERVERS = 3  # of each host, beside itself
HOUSE = ""  # what is nobody's own, such as leases of hosts that are gone, has observers as well


@cache
def _place(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def watched_by(me: str, known: Collection[str], online: Collection[str]) -> set[str]:
    """Return which of the known hosts this one watches; HOUSE if it is one of its observers."""
    ring = sorted({*online, me}, key=_place)
    places = [_place(name) for name in ring]
    mine = {me}
    for name in {*known, *online, HOUSE}:
        after = bisect.bisect_right(places, _place(name))
        others = (ring[(after + i) % len(ring)] for i in range(min(OBSERVERS, len(ring))))
        if me in others:
            mine.add(name)
    return mine
