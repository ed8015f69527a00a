"""Near duplicates: documents per second and core, and how many planted ones are found.

    python -m benchmarks.near_duplicates

Short documents of random words. In one run: what prepare does (shingles, rensa's digests, search,
check of each pair on its shingles), and the same shingles with datasketch's MinHash and its LSH
index of the same bands, without a check (`pip install datasketch`; it is left out where it is not
installed). Seconds are of the processor, over all threads: figures are per core.
"""

import importlib.util
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.report import Table
from ftq_worker.data.near_duplicates import BAND, BANDS, SIMILAR, Signatures, Signed, SignedRows
from ftq_worker.data.shingles import PERMUTATIONS, WORDS, shingles
from ftq_worker.job.context import Control
from ftq_worker.job.progress import Progress

DOCUMENTS, PLANTED, LENGTHS = 20_000, 2_000, (30, 60)  # words of a document
RIVAL_DOCUMENTS = 2_000
BATCH = 500
ROUNDS = 3


def planted(pick: random.Random) -> tuple[list[str], list[float]]:
    """Return documents, the last ones altered copies of the first ones, and their similarities."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(pick.choices(letters, k=pick.randrange(2, 9))) for _ in range(20_000)]
    texts = [pick.choices(words, k=pick.randrange(*LENGTHS)) for _ in range(DOCUMENTS - PLANTED)]
    copies = []
    for text in texts[:PLANTED]:
        copy = list(text)
        # As many words at one end as leave the similarity at 0.8 or just above.
        changed = max(1, int((len(text) - WORDS + 1) * (1 - SIMILAR) / (1 + SIMILAR)))
        copy[-changed:] = pick.choices(words, k=changed)
        copies.append(copy)
    similar = [jaccard(one, other) for one, other in zip(texts, copies, strict=False)]
    return [" ".join(text) for text in texts + copies], similar


def jaccard(one: list[str], other: list[str]) -> float:
    """Return the similarity by the definition, on the words themselves."""
    a, b = ({tuple(t[i : i + WORDS]) for i in range(len(t) - WORDS + 1)} for t in (one, other))
    return len(a & b) / len(a | b)


def ours(texts: list[str], folder: Path) -> np.ndarray:
    """Return for each document the earlier one that it nearly equals, or -1."""
    files = Signatures(folder)
    for start in range(0, len(texts), BATCH):
        files.add(Signed.of(shingles(texts[start : start + BATCH])))
    rows: SignedRows = files.open()
    progress = Progress(lambda *_, **__: None, Control(), "compare", "bands", BANDS)
    return rows.earlier(np.arange(len(texts)), progress)


def datasketch(texts: list[str]) -> int:
    """Return how many documents share a band with an earlier one."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, BAND))
    found = 0
    for number, text in enumerate(texts):
        words = text.split()
        made = MinHash(num_perm=PERMUTATIONS)
        made.update_batch(
            [" ".join(words[i : i + WORDS]).encode() for i in range(len(words) - WORDS + 1)]
        )
        found += bool(index.query(made))
        index.insert(number, made)
    return found


def rate(work: Callable[[], object], documents: int) -> float:
    """Return documents per second of processor time."""
    start = time.process_time()
    work()
    return documents / (time.process_time() - start)


def main() -> None:
    """Print speed and recall."""
    texts, similar = planted(random.Random(1))
    some = texts[:RIVAL_DOCUMENTS]
    table = Table("documents per second and core, 30 to 60 words each")
    with tempfile.TemporaryDirectory() as folder:
        earlier = ours(texts, Path(folder))
        for _ in range(ROUNDS):
            table.add("ftq (rensa)", rate(lambda: ours(texts, Path(folder)), len(texts)))
            if importlib.util.find_spec("datasketch"):
                table.add("datasketch", rate(lambda: datasketch(some), len(some)))
    table.show()
    if "datasketch" in table.samples:
        ratio = table.median("ftq (rensa)") / table.median("datasketch")
        print(f"  ftq is {ratio:.1f} times faster, the check of each pair included")
    wanted = np.array(similar) >= SIMILAR
    found = earlier[-PLANTED:] == np.arange(PLANTED)
    print(
        f"recall at similarity {SIMILAR} or more: {found[wanted].mean():.4f} of {wanted.sum():,}"
        f" planted (similarity {min(similar):.3f} to {max(similar):.3f});"
        f" found that are no copies: {(earlier[:-PLANTED] >= 0).sum()}"
    )


if __name__ == "__main__":
    main()
