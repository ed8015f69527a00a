"""A clock that the test moves."""


class Clock:
    """Gives `now`, in seconds, when it is called."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
