"""Times in events: their text sorts as the times do."""

from datetime import UTC, datetime

import pytest

from ftq_shared.events import rfc3339, utc_now


@pytest.mark.parametrize(
    ("unix_s", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000, "2023-11-14T22:13:20.000Z"),  # a whole second has its milliseconds too
        (1_700_000_000_123 / 1000, "2023-11-14T22:13:20.123Z"),
        (1_709_164_799.9996, "2024-02-28T23:59:59.999Z"),  # cut, never rounded into the next day
    ],
)
def test_a_time_is_utc_with_milliseconds(unix_s: float, text: str) -> None:
    assert rfc3339(unix_s) == text


def test_the_present_is_told_in_the_same_way() -> None:
    before, now, after = datetime.now(UTC), utc_now(), datetime.now(UTC)
    told = datetime.fromisoformat(now)
    assert before.replace(microsecond=before.microsecond // 1000 * 1000) <= told <= after
    assert rfc3339(told.timestamp()) == now
