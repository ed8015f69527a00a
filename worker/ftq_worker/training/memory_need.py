"""What a training step needs of a card: the parts of a sum, and which cards hold it.

The parts of tensors are counted (`memory_count`); what is no tensor is allowed for here.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

from ftq_shared.hosts import is_called
from ftq_shared.spec import Lora, Task

Checkpointing = Literal["none", "all"] | int  # every so many layers

# No tensors: CUDA's context with the kernels that were loaded, cuBLAS' workspaces (32 MiB a stream
# on Hopper) and NCCL's buffers. PyTorch puts the context alone at several hundred MB.
RUNTIME_BYTES = 1_200_000_000
# Of the card, for what the allocator rounds up and cannot use again.
USABLE = 0.9
# Memory of the cards that there are, in GB, for telling the smallest that would do.
CARDS = (
    (16, "T4 or V100"),
    (24, "L4, A10 or RTX 4090"),
    (32, "RTX 5090 or V100"),
    (48, "L40S or RTX A6000"),
    (80, "A100 or H100"),
    (96, "RTX PRO 6000 or GH200"),
    (141, "H200"),
    (180, "B200"),
    (288, "B300"),
)


@dataclass(frozen=True)
class Setup:
    """What is counted: one step of one rank."""

    task: Task
    method: Literal["full", "lora", "qlora"]
    precision: Literal["bf16", "fp16", "fp32"]
    micro_batch: int
    length: int  # tokens of each row
    lora: Lora
    checkpointing: Checkpointing = "none"
    accumulates: bool = False  # gradients stay for another forward pass
    ranks: int = 1
    labels: int = 2
    device: Literal["cpu", "cuda"] = "cuda"  # whose kernels are counted


@dataclass(frozen=True)
class Need:
    """Bytes on one card, by part, at the moment of a step when most is held."""

    base: int  # frozen weights, and what is no weight
    trained: int  # trained weights
    optimizer: int  # Adam's two moments
    gradients: int
    activations: int  # what forward keeps for backward, half-precision copies of weights with it
    working: int  # the tiles of the head, what backward makes on its way
    runtime: int = RUNTIME_BYTES

    @property
    def tensors(self) -> int:
        """The sum of what was counted."""
        return self.total - self.runtime

    @property
    def total(self) -> int:
        """The sum of all parts."""
        counted = self.base + self.trained + self.optimizer + self.gradients
        return counted + self.activations + self.working + self.runtime

    def fits(self, card_bytes: int) -> bool:
        """Return whether a card of so many bytes holds it."""
        return self.total <= USABLE * card_bytes

    def weights_fit(self, card_bytes: int) -> bool:
        """Return whether the card holds what stays from step to step."""
        stays = self.base + self.trained + self.optimizer + self.runtime
        return stays <= USABLE * card_bytes

    def words(self) -> str:
        """Return the parts for people."""
        parts = {
            "base": self.base,
            "trained weights": self.trained,
            "optimizer": self.optimizer,
            "gradients": self.gradients,
            "activations": self.activations,
            "working memory": self.working,
            "CUDA": self.runtime,
        }
        return ", ".join(f"{name} {gb(size)}" for name, size in parts.items() if size >= 5e7)

    def with_working(self, least: int) -> "Need":
        """Return it with at least so many bytes beside weights and optimizer."""
        known = self.gradients + self.activations + self.working
        return replace(self, working=self.working + max(0, least - known))


class Uncountable(Exception):
    """Raised where a step cannot be counted; says why."""


def smallest_card(need: Need) -> str:
    """Return the smallest card that holds it, in words."""
    for size, names in CARDS:
        if need.fits(int(size * 1e9)):
            return f"a card of {size} GB ({names})"
    return f"more than the {CARDS[-1][0]} GB of any one card"


def named_card(kind: str | None) -> int | None:
    """Return the GB of the largest card of a kind, None if none is known; a kind may say them.

    >>> [named_card(kind) for kind in ("l4", "rtx4090", "h100", "a100-40gb", "v100", "x", None)]
    [24, 24, 80, 40, 32, None, None]
    """
    if said := re.search(r"\b([0-9]+)gb\b", kind or ""):
        return int(said[1])
    return max((size for size, names in CARDS if kind and is_called(names, kind)), default=None)


def gb(size: float) -> str:
    """Return bytes in GB, as cards are sold."""
    return f"{size / 1e9:.1f} GB"
