"""What the first steps of a run held of a card, told beside what was counted before."""

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftq_shared.events import EventType
from ftq_worker.job.context import Emit

# The longest rows come first, and Adam's moments are there from the second step on.
STEPS = 2


class MemoryPeak(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Measures once in each attempt, on a GPU; reading the allocator's figures costs nothing."""

    def __init__(self, emit: Emit, counted_bytes: int | None) -> None:
        self._emit, self._counted = emit, counted_bytes
        self._until = 0
        self.found: dict[str, int] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Forget what loading and scoring held."""
        self._until = min(state.global_step + STEPS, state.max_steps)
        torch.cuda.reset_peak_memory_stats()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell the peak after the first steps, or before they end."""
        if self.found or (state.global_step < self._until and not control.should_save):
            return
        counted = {} if self._counted is None else {"counted_bytes": self._counted}
        self.found = {
            "peak_bytes": torch.cuda.max_memory_allocated(),
            "reserved_bytes": torch.cuda.max_memory_reserved(),
            "card_bytes": torch.cuda.get_device_properties().total_memory,
            **counted,
        }
        self._emit(EventType.MEMORY, step=state.global_step, **self.found)
