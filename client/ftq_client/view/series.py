"""A bounded history of one figure over the steps: what the sparkline draws."""

from ftq_client.view.format import number

LIMIT = 2000


class Series:
    """Keeps (step, value) points; beyond the limit every second one goes, evenly."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.points: list[tuple[int, float | None]] = []
        self.stride = 1  # steps between two points that are kept
        self.low: float | None = None  # the lowest finite value, also among those that went

    def add(self, step: int, value: object) -> None:
        """Take one step's value; anything but a finite number is kept as a hole."""
        known = number(value)
        if self.points and step <= self.points[-1][0]:
            self.rewind(step - 1)
        if known is not None and (self.low is None or known < self.low):
            self.low = known
        # A hole is always kept: it is why people look.
        if not self.points or known is None or step - self.points[-1][0] >= self.stride:
            self.points.append((step, known))
        if len(self.points) > self.limit:
            self.points = self.points[::2]
            self.stride *= 2

    def rewind(self, step: int) -> None:
        """Forget what came after `step`: it is computed again."""
        while self.points and self.points[-1][0] > step:
            self.points.pop()

    @property
    def values(self) -> list[float | None]:
        """Return the values in order."""
        return [value for _, value in self.points]
