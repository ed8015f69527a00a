"""How much GPU memory a run needs, part by part: an estimate that `micro_batch` rests on.

The constants are start values, to be calibrated against `torch.cuda.max_memory_allocated()`: 16
bytes a parameter for mixed-precision full fine-tuning (weights, gradients, two Adam moments, all
float32), 34 bytes per layer, token and hidden unit for activations (Korthikanti et al. 2022,
"Reducing Activation Recomputation", equation 2, without the attention matrix, which fused kernels
never store).
"""

from dataclasses import dataclass

from ftq_shared.spec import Lora
from ftq_worker.training.facts import RunFacts

ADAM_BYTES = 16  # per trained parameter: float32 weight, gradient and two moments
ACTIVATION_BYTES = 34  # per layer, token and hidden unit, in half precision
HEAD_BYTES = 8  # per scored token and label or tile entry of the fused head
HEAD_TILE = 4_096  # vocabulary entries that the fused head holds at once
RUNTIME_BYTES = 1_500_000_000  # CUDA context, kernels, fragmentation
USABLE = 0.85  # share of the card that may be planned with

BASE_BYTES = {"full": 0.0, "lora": 2.0, "qlora": 0.56}  # frozen base: bf16, or nf4 with scales


@dataclass(frozen=True)
class Estimate:
    """Bytes on one card, by part."""

    weights: float  # the frozen base
    training: float  # trained weights, gradients and optimizer state
    activations: float
    head: float
    runtime: float = RUNTIME_BYTES

    @property
    def total(self) -> float:
        """The sum of all parts, in bytes."""
        return self.weights + self.training + self.activations + self.head + self.runtime

    def words(self) -> str:
        """Return the parts for people, in GB."""
        parts = {
            "base": self.weights,
            "training": self.training,
            "activations": self.activations,
            "head": self.head,
            "runtime": self.runtime,
        }
        return ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in parts.items() if size)


def estimate(facts: RunFacts, method: str, lora: Lora, micro_batch: int) -> Estimate:
    """Return the memory of one rank with `micro_batch` rows of the longest length."""
    model = facts.model
    parameters = model.parameters or 12 * model.layers * model.hidden_size**2
    trained = parameters if method == "full" else lora_parameters(facts, lora)
    tokens = micro_batch * facts.max_length
    return Estimate(
        weights=parameters * BASE_BYTES[method],
        training=trained * ADAM_BYTES,
        activations=model.layers * tokens * model.hidden_size * ACTIVATION_BYTES,
        head=tokens * min(model.vocab_size, HEAD_TILE) * HEAD_BYTES,
    )


def lora_parameters(facts: RunFacts, lora: Lora) -> int:
    """Estimate the adapter's size: seven linear layers a block, 2.3 hidden units a side."""
    return int(facts.model.layers * 7 * lora.r * 2 * 2.3 * facts.model.hidden_size)


def largest_micro_batch(facts: RunFacts, method: str, lora: Lora, limit: int) -> int:
    """Return the largest power of two up to `limit` that fits; 1 when not even that seems to."""
    size = 1
    while (
        size * 2 <= limit
        and estimate(facts, method, lora, size * 2).total <= USABLE * facts.device.memory_bytes
    ):
        size *= 2
    return size
