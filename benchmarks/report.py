"""Samples as a table: medians with their spread, and ratios of medians."""

import statistics
from dataclasses import dataclass, field


@dataclass
class Table:
    """Samples by name, in the order in which they came."""

    title: str
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Add one sample."""
        self.samples.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        """Return the median of a name's samples."""
        return statistics.median(self.samples[name])

    def show(self) -> None:
        """Print every name with median, quartiles and count."""
        print(self.title)
        for name, values in self.samples.items():
            low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
            median = statistics.median(values)
            print(f"  {name:<24} {median:9.4f}   [{low:.4f}, {high:.4f}]   n={len(values)}")

    def show_ratio(self, slow: str, fast: str) -> None:
        """Print how many times `fast` is faster."""
        print(f"  {fast} is {self.median(slow) / self.median(fast):.1f} times faster than {slow}")
