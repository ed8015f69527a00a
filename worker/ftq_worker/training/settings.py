"""The values that one run trains with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from ftq_shared.spec import Lora, Task
from ftq_worker.training.attention import Precision
from ftq_worker.training.auto_rules import Strategy
from ftq_worker.training.memory_need import Checkpointing
from ftq_worker.training.memory_plan import Method


@dataclass(frozen=True)
class TrainSettings:
    """The values of one run; `to_json` is what train.json and the model card show."""

    task: Task
    method: Method
    epochs: float
    steps: int  # optimizer steps in all
    steps_per_epoch: int
    learning_rate: float
    layerwise_lr_decay: float  # of each layer by the next one's
    class_weights: Literal["none", "balanced"]
    warmup_steps: int
    batch_size: int  # examples per optimizer step, over all ranks
    micro_batch: int  # examples per forward pass on one rank
    accumulation: int  # forward passes per optimizer step
    gradient_checkpointing: Checkpointing
    packing: bool
    precision: Precision
    max_length: int
    eval_every: int | None  # steps; None: there is no validation set
    save_every_steps: int | None  # steps; None: saved by time
    save_every_s: float | None  # seconds; None with no steps: worked out from the first save
    on_divergence: Literal["rollback", "stop"]
    seed: int
    lora: Lora | None
    on_cpu: bool
    world_size: int
    strategy: Strategy  # how several ranks share the work
    args: dict[str, Any]
    counted_bytes: int | None = None  # of tensors on a card; None on a CPU
    attention: str = "sdpa"  # implementation, as transformers names it
    sequence_tokens: int | None = None  # packed: the most tokens of one sequence

    @property
    def sharded(self) -> bool:
        """Whether each rank holds a part of the model only."""
        return self.strategy == "fsdp" and self.world_size > 1

    @property
    def rows_per_step(self) -> int:
        """Rows of an optimizer step, over all ranks."""
        return self.micro_batch * self.accumulation * self.world_size

    def repeated(self, rows: int) -> int:
        """Return how many of `rows` come twice in a pass: each rank gets as many batches."""
        alone = self.world_size == 1 or self.packing  # packing shares out the rows of each step
        return 0 if alone else -rows % (self.micro_batch * self.world_size)

    def to_record(self) -> dict[str, Any]:
        """Return every value as JSON data, for `from_record`."""
        lora = self.lora.model_dump(mode="json") if self.lora else None
        return asdict(self) | {"task": str(self.task), "lora": lora}

    @classmethod
    def from_record(cls, raw: Mapping[str, Any]) -> Self:
        """Read what `to_record` gave. Raises ValueError, KeyError or TypeError for what is none."""
        lora = Lora.model_validate(raw["lora"]) if raw["lora"] else None
        return cls(**{**raw, "task": Task(raw["task"]), "lora": lora})

    def to_json(self) -> dict[str, Any]:
        data = asdict(self) | {"task": str(self.task)}
        if self.packing:  # what a pass holds differs; a step has batch_size examples
            del data["micro_batch"]
            data["sequences_per_step"] = self.accumulation * self.world_size
        return data | {"lora": self.lora.model_dump() if self.lora else None}
