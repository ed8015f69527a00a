"""The ranks of a training: they meet, they agree on what they train, and they fail together."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed
from torch._C._distributed_c10d import FileStore

from ftq_shared.errors import TrainingFailed
from ftq_worker.host.messages import RANK_LOST
from ftq_worker.job.context import Devices, HostFault

Found = TypeVar("Found")

# Longer than any save or compilation that one rank does alone: a rank that stands still is seen and
# ended by the agent, which knows what the phase is doing.
PATIENCE = timedelta(hours=6)


@contextmanager
def gang(devices: Devices) -> Iterator[None]:
    """Meet the other ranks, if there are any, for all that is done inside.

    Raises HostFault (`rank_lost`) where the connection to another one breaks.
    """
    if devices.world_size == 1:
        yield
        return
    if devices.gpus:
        torch.cuda.set_device(devices.rank)  # before anything is loaded: each has its own card
    try:
        distributed.init_process_group(
            "cuda:nccl,cpu:gloo" if devices.gpus else "gloo",
            store=FileStore(devices.meeting, devices.world_size),
            rank=devices.rank,
            world_size=devices.world_size,
            timeout=PATIENCE,
        )
        yield
    except RuntimeError as error:  # what gloo raises has no type of its own
        if "gloo/transport" not in str(error) and not isinstance(error, distributed.DistError):
            raise
        first = str(error).strip().splitlines()[0]
        raise HostFault(
            f"it lost the connection to another rank: {first}", code=RANK_LOST
        ) from error


@contextmanager
def alone() -> Iterator[None]:
    """Let accelerate see one process inside, whatever other ranks there are."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def from_first_rank(work: Callable[[], Found]) -> Found:
    """Return what `work` finds, done by rank 0 alone and told to all."""
    if not distributed.is_initialized():
        return work()
    told: list[Any] = [work() if distributed.get_rank() == 0 else None]
    distributed.broadcast_object_list(told, src=0)
    found: Found = told[0]
    return found


def agree(facts: Callable[[], Mapping[str, object]]) -> None:
    """Compare what each rank is about to train; names are for people.

    Raises TrainingFailed (`ranks_disagree`), on every rank, naming the ranks and what differs.
    """
    if not distributed.is_initialized():
        return
    every: list[dict[str, object]] = [{} for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(every, dict(facts()))
    odd = [
        f"rank {rank} has {name} {mine.get(name)} and rank 0 has {of_first}"
        for rank, mine in enumerate(every)
        for name, of_first in every[0].items()
        if mine.get(name) != of_first
    ]
    if odd:
        raise TrainingFailed(
            f"the ranks would not train the same: {'; '.join(odd)}",
            code="ranks_disagree",
            hint="the cards of a job have to be alike, and the storage has to show every process "
            "the same files; then `ftq retry` goes on",
        )
