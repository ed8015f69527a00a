"""The order of packed training: every step has `batch_size` examples, in few sequences.

Rows are not packed once and for all, but step by step: a step's examples are shared out over as
many sequences as hold them, equally long. So batch size, steps, warm-up and evaluations are those
of the same run without packing, and so is what a step computes.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch.utils.data import Sampler

from ftq_worker.training.sampling import digest_of
from ftq_worker.training.settings import TrainSettings

Sequences = list[list[int]]  # numbers of the rows that each one holds


class PackedOrder(Sampler[list[int]]):
    """Yields the rows of one sequence after the other; those of all ranks in turn.

    `epoch` is set from outside before each pass, as that of `LengthGroupedOrder`.
    """

    def __init__(self, lengths: Sequence[int], settings: TrainSettings) -> None:
        self._lengths, self._settings = list(lengths), settings
        self.epoch = 0

    def digest(self) -> str:
        """Return what tells this order, and the lengths of the rows, from any other."""
        return digest_of(chain.from_iterable(self), self._lengths)

    def rows_of(self, number: int) -> list[int]:
        """Return the rows of one step of this pass, counted from 0."""
        step = packed_order(self._lengths, self._settings, self.epoch)[number]
        return list(dict.fromkeys(chain.from_iterable(step)))

    def __len__(self) -> int:
        rows, settings = len(self._lengths), self._settings
        whole, rest = divmod(rows, settings.batch_size)
        most = settings.accumulation * settings.world_size
        return whole * most + min(most, _whole_ranks(rest, settings.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        packed = packed_order(self._lengths, self._settings, self.epoch)
        return (sequence for step in packed for sequence in step)


def with_packing(settings: TrainSettings, lengths: Sequence[int]) -> TrainSettings:
    """Return the settings with the fewest sequences per step that hold every step of the run.

    A sequence has at most the tokens of a full micro-batch: so much memory was planned for.
    """
    most = settings.micro_batch * settings.max_length
    epochs = math.ceil(settings.steps / settings.steps_per_epoch)
    made, before = replace(settings, accumulation=1, sequence_tokens=most), 0
    while made.accumulation != before:  # until one number holds all of them
        before = made.accumulation
        for epoch in range(epochs):
            for rows in _steps(len(lengths), made, epoch):
                while (
                    made.accumulation * made.world_size < len(rows)
                    and _longest(_shared_out(rows, lengths, made), lengths) > most
                ):
                    made = replace(made, accumulation=made.accumulation + 1)
    return made


def packed_order(lengths: Sequence[int], settings: TrainSettings, epoch: int) -> list[Sequences]:
    """Return the sequences of each step of one epoch; a pure function of its arguments.

    The step with most tokens comes first, so that running out of memory shows there. Which rows a
    step has does not depend on the sequences, which are more where memory has run out.
    """
    steps = list(_steps(len(lengths), settings, epoch))
    whole = range(len(lengths) // settings.batch_size)
    if whole:
        longest = max(whole, key=lambda i: sum(lengths[row] for row in steps[i]))
        steps[0], steps[longest] = steps[longest], steps[0]
    return [_shared_out(rows, lengths, settings) for rows in steps]


def _steps(rows: int, settings: TrainSettings, epoch: int) -> Iterator[list[int]]:
    """Yield the rows of each step, shuffled by seed and epoch; the last step may be short."""
    generator = torch.Generator().manual_seed((settings.seed * 1_000_003 + epoch) % 2**63)
    order = torch.randperm(rows, generator=generator).tolist()
    for start in range(0, rows, settings.batch_size):
        yield order[start : start + settings.batch_size]


def _shared_out(rows: list[int], lengths: Sequence[int], settings: TrainSettings) -> Sequences:
    """Return a step's sequences: each row, the longest first, goes to the shortest sequence.

    Every rank gets as many. Where a step at the end of a pass has too few rows for that, short ones
    are given twice, as accelerate does with batches.
    """
    world = settings.world_size
    count = min(settings.accumulation * world, _whole_ranks(len(rows), world))
    ordered = sorted(rows, key=lambda row: -lengths[row])
    ordered += ordered[-1:] * (count - len(ordered))
    sequences: Sequences = [[] for _ in range(count)]
    filled = [(0, i) for i in range(count)]
    for row in ordered:
        tokens, i = heapq.heappop(filled)
        sequences[i].append(row)
        heapq.heappush(filled, (tokens + lengths[row], i))
    return sequences


def _whole_ranks(rows: int, world: int) -> int:
    return math.ceil(rows / world) * world


def _longest(sequences: Sequences, lengths: Sequence[int]) -> int:
    return max(sum(lengths[row] for row in sequence) for sequence in sequences)
