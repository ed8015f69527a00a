"""The card, and what it could do at most."""

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

# Dense bfloat16 TFLOP/s, without sparsity, as the makers' data sheets give them.
PEAK = {
    "H200": 989,
    "H100 PCIe": 756,
    "H100": 989,
    "B200": 2250,
    "A100": 312,
    "A10G": 70,
    "L40S": 362,
    "L4": 121,
    "RTX 4090": 165,
    "RTX 5090": 210,
}
LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "bitsandbytes",
    "flash-attn",
    "kernels",
)


@dataclass(frozen=True)
class Card:
    """One card, or the CPU where a rehearsal runs."""

    name: str
    memory_gb: float = 0.0
    gpus: int = 0

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    @property
    def peak_flops(self) -> float | None:
        """FLOP/s in bfloat16; None where it is not known."""
        return next((1e12 * peak for part, peak in PEAK.items() if part in self.name), None)


def find_card(rehearse: bool) -> Card:
    """Return the first card; raises SystemExit where there is none and nobody rehearses."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Card(properties.name, properties.total_memory / 1e9, torch.cuda.device_count())
    if not rehearse:
        raise SystemExit("no CUDA device is here; --rehearse tries the kit on the CPU, tiny")
    return Card(f"CPU {platform.machine()}")


def versions() -> dict[str, str]:
    """Return the libraries that matter; those that are not installed are left out."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
