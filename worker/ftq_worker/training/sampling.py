"""The order of the training rows: grouped by length, and the same in every attempt.

transformers' own LengthGroupedSampler draws from the global generator, whose state at the start
of an epoch is unknown to a run that resumes in the middle of it; this one depends on nothing but
the seed, the epoch and the rows of a step, so an interrupted run goes on with exactly the rows that
would have come, also when a step is cut into smaller micro-batches than before.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch.utils.data import Sampler

BATCHES_PER_GROUP = 50  # batches that are sorted together: enough to find rows of equal length


class LengthGroupedOrder(Sampler[int]):
    """Yields every row once per epoch, rows of similar length in one step.

    Grouped by the rows of a step over all ranks, as transformers' group_by_length does, and not by
    those of a forward pass: what a step trains on does not depend on the memory of a card.

    `epoch` is set from outside before each pass; no `set_epoch`, which accelerate would call with
    a number of its own after a resume.
    """

    def __init__(self, lengths: Sequence[int], rows_per_step: int, seed: int) -> None:
        self._lengths = list(lengths)
        self._rows_per_step = rows_per_step
        self._seed = seed
        self.epoch = 0

    def digest(self) -> str:
        """Return what tells this order, and the lengths of the rows, from any other."""
        return digest_of(self, self._lengths)

    def rows_of(self, number: int) -> list[int]:
        """Return the rows of one step of this pass, counted from 0."""
        start = number * self._rows_per_step
        return list(self)[start : start + self._rows_per_step]

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(grouped_order(self._lengths, self._rows_per_step, self._seed, self.epoch))


def digest_of(rows: Iterable[int], lengths: Sequence[int]) -> str:
    """Return what tells an order of rows, and their lengths, from any other."""
    order = ",".join(f"{row}:{lengths[row]}" for row in rows)
    return hashlib.sha256(order.encode()).hexdigest()[:12]


def grouped_order(lengths: Sequence[int], batch: int, seed: int, epoch: int) -> list[int]:
    """Return the row numbers of one epoch; a pure function of its arguments.

    Rows are shuffled, cut into groups of 50 batches, sorted by length within a group and cut into
    batches, which are shuffled again: without that, every group would train long rows first. The
    longest batch comes first of all, so that running out of memory shows at step 1. Within a batch
    the rows fall in length, so that micro-batches of any size have little padding.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    shuffled = torch.randperm(len(lengths), generator=generator).tolist()
    span = batch * BATCHES_PER_GROUP
    batches: list[list[int]] = []
    for start in range(0, len(shuffled), span):
        group = sorted(shuffled[start : start + span], key=lambda row: -lengths[row])
        batches += [group[i : i + batch] for i in range(0, len(group), batch)]
    short = batches.pop() if batches and len(batches[-1]) < batch else []
    order = torch.randperm(len(batches), generator=generator).tolist()
    picked = [batches[i] for i in order]
    if picked:
        longest = max(range(len(picked)), key=lambda i: lengths[picked[i][0]])
        picked[0], picked[longest] = picked[longest], picked[0]
    return [row for rows in [*picked, short] for row in rows]
